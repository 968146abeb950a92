"""The metric registry under the names that the report knows it by."""

from flipside.masks.thresholds import POLICIES
from flipside.metrics.families.realism import DISTANCES
from flipside.metrics.registry import METRICS, count, higher_is_better, label, meaning, why_missing

__all__ = ["DISTANCES", "METRICS", "POLICIES", "count", "higher_is_better", "label", "meaning", "why_missing"]

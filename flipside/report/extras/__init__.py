"""What only some methods write besides a map and a counterfactual: one file for each, shown where a method has it."""

from __future__ import annotations

from collections.abc import Callable

from flipside.report.extras.abnormal import show_abnormal
from flipside.report.extras.attributes import show_attributes
from flipside.report.extras.extra import Extra
from flipside.report.extras.regions import show_regions
from flipside.report.inputs import ReportInputs, Result

# In the order of the page. Each returns None for a method that did not write what it shows.
EXTRAS: tuple[Callable[[ReportInputs, Result], Extra | None], ...] = (show_regions, show_attributes, show_abnormal)

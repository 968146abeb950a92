"""The page on metrics, from the registry that metrics.json, tables, report and comparison follow."""

from __future__ import annotations

from docs.generate.tables import cell, code, table
from flipside.metrics.classifier_quality import CLASSIFIER_METRICS
from flipside.metrics.family import Metric
from flipside.metrics.registry import COUNTS, COUNTS_THEME, METRICS, themes
from flipside.regression.comparison import read_tolerances

HEADER = ("metric", "label", "better", "meaning", "rests on", "tolerance")
INTRODUCTION = """# Metrics

Every number in `reports/metrics.json`, which maps a method to its metrics.

* *Rests on* names the count that says how many slices, lesions or patients are behind a number.
* *Tolerance* is by how much the number may get worse before `make compare` fails. A metric without one is shown and not
  judged.
* `±`: `<metric>_ci_low` and `<metric>_ci_high` stand beside it, the ends of its interval.

[Statistics](../explanation/statistics.md) says how intervals and tests are made.
"""


def page() -> str:
    """The whole page, Markdown."""
    tolerances = read_tolerances()
    parts = [INTRODUCTION]
    for theme in themes():
        chosen = {name: metric for name, metric in METRICS.items() if metric.theme == theme}
        if chosen:
            parts += [f"## {theme}", "", metrics_table(chosen, tolerances.methods), ""]
            parts += [f"May be missing: {cell(reason)}.\n" for reason in dict.fromkeys(
                metric.absent for metric in chosen.values() if metric.absent)]
    parts += [f"## {COUNTS_THEME}", "", table(("count", "meaning"), [
        (code(name), cell(meaning)) for name, meaning in COUNTS.items()]), "",
        "## Classifier and judge", "", "In `reports/classifier.json` and `reports/judge.json`, on the test split.", "",
        metrics_table(CLASSIFIER_METRICS, tolerances.classifier), ""]
    return "\n".join(parts)


def metrics_table(metrics: dict[str, Metric], tolerances: dict[str, float | None]) -> str:
    """A row for each metric."""
    return table(HEADER, [
        (code(name) + (" ±" if metric.interval else ""), cell(metric.label),
         "more" if metric.higher_is_better else "less", cell(metric.meaning), code(metric.n) if metric.n else "",
         limit(tolerances.get(name)))
        for name, metric in metrics.items()])


def limit(tolerance: float | None) -> str:
    """A tolerance, or nothing for a metric that is not judged."""
    return "" if tolerance is None else f"{tolerance:g}"

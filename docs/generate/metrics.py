"""The page on metrics, from the glossary that report, tables and comparison use."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from docs.generate.tables import cell, code, table
from flipside.core.files import read_json
from flipside.report.glossary import METRICS

HEADER = ("metric", "label", "better", "meaning", "rests on", "tolerance")
# What stands beside a metric under a name made from its own.
SUFFIXES = {
    "_ci_low": "Lower end of the interval of the metric before it.",
    "_ci_high": "Upper end of the interval of the metric before it.",
    "_std": "Standard deviation over the draws of the metric before it.",
}


def page(results: Path = Path("results/default/metrics.json")) -> str:
    """The whole page, Markdown; `results` tells which further numbers stand in a metrics file."""
    tolerances = yaml.safe_load(Path("tolerances.yaml").read_text())["methods"]
    rows = [(code(name), cell(metric.label), "more" if metric.higher_is_better else "less", cell(metric.meaning),
             code(metric.n), f"{tolerances[name]:g}" if name in tolerances else "") for name, metric in METRICS.items()]
    others = sorted({name for values in read_json(results).values() for name in values} - set(METRICS))
    plain = [name for name in others if not name.endswith(tuple(SUFFIXES))]
    return "\n".join([
        "# Metrics", "",
        "Every number in `reports/metrics.json`, which maps a method to its metrics. *Rests on* names the metric that "
        "counts the cases behind a number. *Tolerance* is by how much it may get worse before `make compare` fails; "
        "a metric without one is shown and not judged. How intervals and tests are made stands in "
        "[Statistics](../explanation/statistics.md).", "", table(HEADER, rows), "",
        "## Beside a metric", "",
        table(("ending", "meaning"), [(code(ending), meaning) for ending, meaning in SUFFIXES.items()]), "",
        "The default run has: "
        + ", ".join(code(name) for name in others if name.endswith(tuple(SUFFIXES))) + ".", "",
        "## Counts and other numbers", "",
        table(("metric", "meaning"), [(code(name), counted(name)) for name in plain]), ""])


def counted(name: str) -> str:
    """What a count counts, from the metrics that rest on it."""
    of = [metric for metric, known in METRICS.items() if known.n == name]
    if not of:
        return COUNTS.get(name, re.sub("^n_", "", name).replace("_", " "))
    few = ", ".join(code(metric) for metric in of[:4])
    return COUNTS.get(name, "Cases") + f", behind {few}" + (f" and {len(of) - 4} more" if len(of) > 4 else "")


COUNTS = {
    "n_cases": "Test slices with a lesion",
    "n_healthy": "Healthy test slices",
    "n_lesion_vanished": "Test slices labelled abnormal whose lesion is lost when the slice is resized; left out of "
                         "`n_cases`",
    "n_lesions": "Single lesions",
    "n_missed_val": "Lesion slices on which the policy `val` marks nothing",
    "n_patients": "Patients with a lesion slice",
    "n_realism_real": "Real healthy slices that the counterfactuals are compared with",
    "n_test": "Test slices",
}

"""Every metric of every method, and what each of them means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flipside.report import glossary
from flipside.report.cells import Cell, metric_cell
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.tables import known_metrics

# Where a metric stands in the table of all metrics: the first theme with a matching beginning of its name.
THEMES = (
    ("Overlap with the lesion", ("iou_", "dice_", "pixel_ap", "ncc", "per_")),
    ("Borders, single lesions and false alarms", ("hd95", "asd", "lesion_", "fp_")),
    ("D, H, A, O of Major et al.", ("centre_distance", "hausdorff", "area_to_organ", "overlap_reference")),
    ("Does the counterfactual flip the classifiers?", ("success", "cv", "judge", "flip")),
    ("Where does a lesion appear in a healthy slice?", ("added_",)),
    ("How much is changed, and where?", ("l1", "ssim", "lpips", "perceptual", "change_", "psnr_", "cycle_",
                                         "inversion_")),
    ("Do counterfactuals look like real images?", ("fid", "kid", "fd_")),
    ("Against the reference method", ("wilcoxon", "rank_biserial")),
    ("Do the classifier's weights matter?", ("sanity_randomisation", "randomisation")),
    ("Time", ("seconds", "peak_memory")),
    ("Counts", ("n_",)),
    ("Other", ("",)),
)
COMPARED = ("_difference",)  # endings of metrics that belong to the comparison with the reference
BOUNDS = ("_ci_low", "_ci_high")


@dataclass(frozen=True)
class MetricRow:
    """One metric of every method."""

    name: str
    cells: list[Cell]


@dataclass(frozen=True)
class Theme:
    """Metrics that answer the same question."""

    title: str
    rows: list[MetricRow]


@dataclass(frozen=True)
class Gap:
    """Methods that lack a metric, and why."""

    who: str
    reason: str


@dataclass(frozen=True)
class MeaningOf:
    """A metric's entry in the glossary."""

    name: str
    label: str
    meaning: str
    higher: bool  # more is better
    counterfactual: bool  # needs a counterfactual image
    gaps: list[Gap]


@dataclass(frozen=True)
class AllMetrics(Section):
    """Metrics down, by theme, methods across; an interval stands with its metric. Below it the glossary."""

    id = "metrics"
    link = "All metrics"
    heading = "All metrics"

    methods: list[str]
    count: int
    themes: list[Theme]
    glossary: list[MeaningOf]
    maps_only: list[str]  # methods without counterfactuals

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        known = known_metrics(inputs.metrics)
        bounds = {metric + end for metric in known for end in BOUNDS}
        rows: dict[str, list[MetricRow]] = {title: [] for title, _ in THEMES}
        for metric in known:
            if metric not in bounds:
                cells = [metric_cell(result, metric) for result in inputs.results.values()]
                rows[theme_of(metric)].append(MetricRow(metric, cells))
        return cls(
            methods=list(inputs.results), count=len(known),
            themes=[Theme(title, found) for title, found in rows.items() if found],
            glossary=[explain_metric(inputs, name) for name in glossary.METRICS],
            maps_only=[result.name for result in inputs.results.values() if not result.has_counterfactual])


def theme_of(metric: str) -> str:
    """The heading under which a metric stands in the table of all metrics."""
    if metric.endswith(COMPARED):
        return "Against the reference method"
    return next(title for title, beginnings in THEMES if metric.startswith(beginnings))


def explain_metric(inputs: ReportInputs, name: str) -> MeaningOf:
    """What a metric means, and why methods lack it; that maps alone give no counterfactual is said once, elsewhere."""
    metric = glossary.METRICS[name]
    asked = [result for result in inputs.results.values()
             if result.has_counterfactual or not metric.needs_counterfactual]
    lacking: dict[str, list[str]] = {}  # reason -> methods
    for result in asked:
        if name not in result.metrics:
            reason = glossary.why_missing(name, result.has_counterfactual, result.missing)
            lacking.setdefault(reason, []).append(result.name)
    gaps = [Gap("every method" if len(who) == len(asked) else ", ".join(who), reason)
            for reason, who in lacking.items()]
    return MeaningOf(name, metric.label, metric.meaning, metric.higher_is_better, metric.needs_counterfactual, gaps)

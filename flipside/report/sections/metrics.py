"""Every metric of every method, and what each of them means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flipside.metrics import registry
from flipside.report.cells import Cell, metric_cell
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.tables import known_metrics


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
    """A metric's entry in the registry."""

    name: str
    label: str
    meaning: str
    higher: bool  # more is better
    counterfactual: bool  # needs a counterfactual image
    gaps: list[Gap]


@dataclass(frozen=True)
class AllMetrics(Section):
    """Metrics down, by theme, methods across; an interval stands with its metric. Below it the registry."""

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
        rows: dict[str, list[MetricRow]] = {title: [] for title in registry.themes()}
        for metric in known:
            if registry.base_name(metric) == metric:
                cells = [metric_cell(result, metric) for result in inputs.results.values()]
                rows[registry.theme_of(metric)].append(MetricRow(metric, cells))
        return cls(
            methods=list(inputs.results), count=len(known),
            themes=[Theme(title, found) for title, found in rows.items() if found],
            glossary=[explain_metric(inputs, name) for name in registry.METRICS],
            maps_only=[result.name for result in inputs.results.values() if not result.has_counterfactual])


def explain_metric(inputs: ReportInputs, name: str) -> MeaningOf:
    """What a metric means, and why methods lack it; that maps alone give no counterfactual is said once, elsewhere."""
    metric = registry.METRICS[name]
    asked = [result for result in inputs.results.values()
             if result.has_counterfactual or not metric.needs_counterfactual]
    lacking: dict[str, list[str]] = {}  # reason -> methods
    for result in asked:
        if name not in result.metrics:
            reason = registry.why_missing(name, result.has_counterfactual, result.missing)
            lacking.setdefault(reason, []).append(result.name)
    gaps = [Gap("every method" if len(who) == len(asked) else ", ".join(who), reason)
            for reason, who in lacking.items()]
    return MeaningOf(name, metric.label, metric.meaning, metric.higher_is_better, metric.needs_counterfactual, gaps)

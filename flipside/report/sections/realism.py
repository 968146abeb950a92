"""Distances between scans and counterfactuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flipside.metrics import registry
from flipside.report.cells import Cell, metric_cell
from flipside.report.inputs import ReportInputs, Result
from flipside.report.sections.section import Section
from flipside.report.tables import number


@dataclass(frozen=True)
class DistanceRow:
    """One distance of every method."""

    label: str
    meaning: str
    higher: bool  # more is better
    cells: list[Cell]
    unchanged: str  # what the scans get as they are


@dataclass(frozen=True)
class Remark:
    """Why metrics were not measured, or what limits them."""

    labels: list[str]
    text: str


@dataclass(frozen=True)
class Realism(Section):
    """Metrics that any method has down, methods that make counterfactuals across; below them the remarks, each once."""

    id = "realism"
    link = "Distances"
    heading = "Distances between scans and counterfactuals"

    methods: list[str]
    rows: list[DistanceRow]
    remarks: list[Remark]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        makers = inputs.with_counterfactual()
        if not makers:
            return None
        names = registry.metrics_in("distances")
        rows = [compare_distance(name, makers) for name in names if any(name in maker.metrics for maker in makers)]
        return cls([maker.name for maker in makers], rows, collect_remarks(names, makers))


def compare_distance(name: str, makers: list[Result]) -> DistanceRow:
    """One distance of all methods; that of the unchanged scans is the same for all of them."""
    unchanged = next((maker.metrics[f"{name}_unchanged"] for maker in makers if f"{name}_unchanged" in maker.metrics),
                     None)
    return DistanceRow(registry.label(name), registry.meaning(name), registry.higher_is_better(name),
                       [metric_cell(maker, name) for maker in makers], number(unchanged))


def collect_remarks(names: list[str], makers: list[Result]) -> list[Remark]:
    """Why metrics are missing and what limits them, each reason once with the metrics that it is about."""
    labels: dict[str, dict[str, None]] = {}  # text -> labels, in their order
    for maker in makers:
        for start, about in (("not measured", maker.missing), ("* read with care", maker.cautions)):
            for name in (name for name in names if name in about):
                labels.setdefault(f"{start}: {about[name]}", {})[registry.label(name)] = None
    return [Remark(list(found), text) for text, found in labels.items()]

"""The ranked table of the most telling metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from markupsafe import Markup

from flipside.core.params import value_at
from flipside.metrics import registry
from flipside.report import tables
from flipside.report.cells import Cell, draw_ranked, metric_cell, ranked_scale
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Column, Section


@dataclass(frozen=True)
class RankedRow:
    """One method."""

    place: str
    name: str
    control: bool
    upper_bound: bool  # trained with lesion masks, in no rank
    files: bool  # maps that were made elsewhere
    mark: str  # signs that `warnings` explains
    drawing: Markup  # of the first cell
    cells: list[Cell]
    n: str  # test slices that the ranked metric rests on


@dataclass(frozen=True)
class Ranking(Section):
    """Methods down, best first; metrics across, the one that ranks first."""

    id = "ranking"
    link = "Ranking"
    heading = "Ranking"

    rank_label: str
    confidence: float  # of the intervals, in percent
    controls: list[str]
    columns: list[Column]
    rows: list[RankedRow]
    warnings: list[str]
    trainings: str  # what the second interval is over; empty where nothing was repeated
    policies: dict[str, str]  # threshold policies and what they mean; empty without lesion masks

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        names = tables.columns(inputs.rank_by, tables.TABLE)
        largest = ranked_scale(inputs)
        rows = []
        places = tables.placed(inputs.metrics, inputs.rank_by)
        for result in inputs.results.values():
            n = registry.count(result.metrics, inputs.rank_by)
            rows.append(RankedRow(
                places[result.name], result.name, result.is_control, result.is_upper_bound, result.is_from_files,
                tables.mark(result.metrics),
                draw_ranked(result.metrics, inputs.rank_by, largest),
                [metric_cell(result, name, inputs.trainings) for name in names],
                tables.MISSING if n is None else str(n)))
        return cls(
            rank_label=registry.label(inputs.rank_by),
            confidence=100 * value_at(inputs.parameters, "evaluate.confidence"),
            controls=[result.name for result in inputs.results.values() if result.is_control],
            columns=[Column.of(name) for name in names],
            rows=rows, warnings=tables.warnings(inputs.metrics),
            trainings=tables.one_or_several(inputs.trainings) if inputs.trainings.series else "",
            policies=tables.policies(inputs.metrics) if inputs.has_lesion_masks else {})

"""The same run trained again under other seeds: how far each number moves, and which differences stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flipside.core.params import value_at
from flipside.metrics import registry
from flipside.report import sureness, tables
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.trainings import SERIES, Series


@dataclass(frozen=True)
class SeriesTable:
    """Every number of the ranked table over the trainings of one series; only methods that it reaches."""

    heading: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Repetitions(Section):
    """The ranking metric with both its intervals, then all metrics of each series; only after `flipside repeat`."""

    id = "repetitions"
    link = "Trained again"
    heading = "Trained again under other seeds"

    rank_label: str
    series_headings: list[str]
    rows: list[sureness.SureRow]
    rule: str
    tables: list[SeriesTable]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        if not inputs.trainings.series:
            return None
        confidence = value_at(inputs.parameters, "evaluate.confidence")
        return cls(
            rank_label=registry.label(inputs.rank_by), series_headings=sureness.series_headings(inputs.trainings),
            rows=sureness.sure_rows(inputs.metrics, inputs.rank_by, inputs.trainings, confidence), rule=sureness.RULE,
            tables=[series_table(inputs, series) for series in sureness.trained_series(inputs.trainings)])


def series_table(inputs: ReportInputs, series: Series) -> SeriesTable:
    """Mean and range of each metric of the ranked table."""
    names = tables.columns(inputs.rank_by, tables.TABLE)
    rows = []
    for method in inputs.results:
        cells = [tables.spread_text(inputs.trainings, series, method, name) for name in names]
        if any(cells):
            rows.append((method, [cell or tables.MISSING for cell in cells]))
    return SeriesTable(f"{inputs.trainings.count(series)} trainings: {SERIES[series]}",
                       [registry.label(name) for name in names], rows)

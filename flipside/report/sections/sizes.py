"""The methods' results by the size of the lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pandas as pd
from markupsafe import Markup

from flipside.report import charts
from flipside.report.cells import bounds_text
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.tables import number


@dataclass(frozen=True)
class SizeGroup:
    """Head of one group's column."""

    name: str
    sizes: str
    n_cases: int
    n_patients: int


@dataclass(frozen=True)
class SizeCell:
    """One method's numbers in one group."""

    iou: str
    bounds: str
    ap: str
    drawing: Markup


@dataclass(frozen=True)
class SizeRow:
    """One method."""

    name: str
    control: bool
    cells: list[SizeCell]


@dataclass(frozen=True)
class LesionSizes(Section):
    """Mean IoU and average precision by lesion size, groups across; only where a group has a case."""

    id = "sizes"
    link = "Lesion sizes"
    heading = "By lesion size"

    groups: list[SizeGroup]
    rows: list[SizeRow]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        table = inputs.subgroups[inputs.subgroups["n_cases"] > 0]
        if table.empty:
            return None
        largest = float(table[["iou", "iou_ci_high"]].max().max())
        rows = []
        for result in inputs.results.values():
            cells = []
            for group in table[table["method"] == result.name].itertuples():
                bounds = None if pd.isna(group.iou_ci_low) else (group.iou_ci_low, group.iou_ci_high)
                cells.append(SizeCell(number(group.iou), bounds_text(bounds), number(group.pixel_ap),
                                      charts.draw_interval(group.iou, bounds, None, largest)))
            rows.append(SizeRow(result.name, result.is_control, cells))
        return cls([SizeGroup(group.size_group, describe_sizes(group.low_mm2, group.high_mm2), group.n_cases,
                              group.n_patients)  # the groups are the same for all methods
                    for group in table[table["method"] == rows[0].name].itertuples()], rows)


def describe_sizes(low_mm2: float, high_mm2: float) -> str:
    """A range of lesion areas in words."""
    low, high = (f"{area:.0f}" if area >= 10 else f"{area:.2g}" for area in (low_mm2, high_mm2))
    return f"{low} to {high} mm²"

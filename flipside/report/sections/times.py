"""Seconds, memory and device of every method, as its explain stage measured them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from markupsafe import Markup

from flipside.report.charts import draw_level
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.tables import number


@dataclass(frozen=True)
class TimeRow:
    """One method."""

    name: str
    images: int
    seconds: str
    seconds_per_image: str
    time_bar: Markup
    memory: str  # GB; a dash where the platform doesn't tell it
    memory_bar: Markup
    device: str


@dataclass(frozen=True)
class Times(Section):
    """Methods down, best first; the bars of a column on one scale from 0."""

    id = "times"
    link = "Times"
    heading = "Time and memory"

    rows: list[TimeRow]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        found = {name: result.explanations.timing for name, result in inputs.results.items()
                 if not result.is_from_files}
        slowest = max(float(timing["seconds_per_image"]) for timing in found.values())
        greatest = max(float(timing["peak_memory_gb"] or 0) for timing in found.values())
        rows = []
        for name, timing in found.items():
            per_image, memory = float(timing["seconds_per_image"]), timing["peak_memory_gb"]
            rows.append(TimeRow(name, timing["images"], number(float(timing["seconds"])), number(per_image),
                                draw_level(per_image, slowest), number(memory),
                                draw_level(memory, greatest) if memory else Markup(""), timing["device"]))
        return cls(rows)

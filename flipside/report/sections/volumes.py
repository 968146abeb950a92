"""Lesions of whole scans, in 3D."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flipside.metrics.families.lesion_volumes import LesionVolumes
from flipside.report.cells import Cell, metric_cell
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Column, Section


@dataclass(frozen=True)
class VolumeRow:
    """One method."""

    name: str
    control: bool
    cells: list[Cell]


@dataclass(frozen=True)
class Volumes(Section):
    """Methods down, best first; only where the data set has scans of several slices."""

    id = "volumes"
    link = "Whole scans"
    heading = "Lesions of whole scans, in 3D"

    n_volumes: int
    n_with_lesion: int
    n_with_gaps: int
    n_lesions: int
    columns: list[Column]
    rows: list[VolumeRow]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        counts = next((values for values in inputs.metrics.values() if "n_volumes" in values), None)
        if counts is None:
            return None
        names = list(LesionVolumes.metrics)
        return cls(
            n_volumes=int(counts["n_volumes"]), n_with_lesion=int(counts["n_volumes_with_lesion"]),
            n_with_gaps=int(counts["n_volumes_with_gaps"]), n_lesions=int(counts["n_lesions_3d"]),
            columns=[Column.of(name) for name in names],
            rows=[VolumeRow(result.name, result.is_control, [metric_cell(result, name) for name in names])
                  for result in inputs.results.values()])

"""What the numbers rest on, and what was dropped on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.tables import MISSING


@dataclass(frozen=True)
class Population:
    """Slices that a kind of number rests on."""

    name: str
    meaning: str
    n_slices: str
    n_patients: str
    dropped: str
    reason: str  # why slices were dropped; empty where none was


@dataclass(frozen=True)
class Data(Section):
    """reports/populations.csv, and the manifests of the stages that prepare the data."""

    id = "data"
    link = "Data"
    heading = "Data: what the numbers rest on, and what was dropped"

    populations: list[Population]
    manifests: dict[str, Any]  # folder -> its manifest.json

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        populations = [Population(_text(row.population), _text(row.meaning), _count(row.n_slices),
                                  _count(row.n_patients), _count(row.dropped), _text(row.reason))
                       for row in inputs.populations.itertuples()]
        return cls(populations, inputs.manifests)


def _count(value: float) -> str:
    return MISSING if pd.isna(value) else str(int(value))


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)

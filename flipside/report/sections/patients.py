"""How far each method's scores lie apart between patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pandas as pd
from markupsafe import Markup

from flipside.report import charts
from flipside.report.inputs import ReportInputs, Result
from flipside.report.sections.section import Section
from flipside.report.tables import interval, number


@dataclass(frozen=True)
class PatientRow:
    """One method: its patients' mean scores."""

    name: str
    control: bool
    drawing: Markup
    worst: str
    median: str
    best: str
    n: int


@dataclass(frozen=True)
class Patients(Section):
    """Each method's mean IoU of every patient; only where there are lesion masks."""

    id = "patients"
    link = "Patients"
    heading = "Patient by patient"

    label: str  # of the score
    rows: list[PatientRow]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        if not inputs.has_lesion_masks:
            return None
        column, label = inputs.iou_column, f"IoU ({inputs.params.policy})"
        rows = []
        for result in inputs.results.values():
            means = patient_means(result, column)
            drawing = charts.draw_patients(means, float(result.cases[column].mean()), interval(result.metrics, column),
                                           f"{label} of {result.name}")
            rows.append(PatientRow(result.name, result.is_control, drawing, number(float(means.min())),
                                   number(float(means.median())), number(float(means.max())), len(means)))
        return cls(label, rows)


def patient_means(result: Result, column: str) -> pd.Series:
    """One method's mean score of each patient over that patient's scored lesion slices (others have no score)."""
    return result.cases.dropna(subset=[column]).groupby("patient_id")[column].mean()

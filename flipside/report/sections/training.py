"""Learning curves of every trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pandas as pd

from flipside.report.charts import Chart, DrawnChart, draw, thin
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section


@dataclass(frozen=True)
class Training(Section):
    """One small chart per model and recorded value."""

    id = "training"
    link = "Training"
    heading = "Training"

    charts: dict[str, list[DrawnChart]]  # model -> its charts, none where it left no curves

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        return cls({model: [draw_curve(name, table) for name, table in curves.items()]
                    for model, curves in inputs.training.items()})


def draw_curve(name: str, table: pd.DataFrame) -> DrawnChart:
    """The chart of a recorded value over the step, or of the ROC curve."""
    table = thin(table)
    if name == "roc":
        return DrawnChart("ROC, test split", draw(Chart(
            name, table["fpr"].to_numpy(float), table["tpr"].to_numpy(float), "false positive rate", name,
            x_range=(0.0, 1.0), y_range=(0.0, 1.0))))
    return DrawnChart(name, draw(Chart(name, table["step"].to_numpy(float), table[table.columns[-1]].to_numpy(float),
                                   "step", name)))

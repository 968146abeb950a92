"""The check of the inpainter: what the classifier says where healthy tissue or a lesion is inpainted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from flipside.report.charts import Chart, DrawnChart, draw
from flipside.report.inpainter_roc import ARMS
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section


@dataclass(frozen=True)
class Inpainter(Section):
    """ROC curves of the classifier on slices as they are, with healthy tissue and with lesions inpainted.

    Each chart has the mean over the draws in front of all draws of all three.
    """

    id = "inpainter"
    link = "Inpainter"
    heading = "Does inpainting matter only where a lesion was?"

    metrics: dict[str, float]  # reports/inpainter.json
    charts: list[DrawnChart]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        if inputs.inpainter is None:
            return None
        metrics, curves = inputs.inpainter
        grid = np.linspace(0, 1, 101)
        lines = {arm: [np.interp(grid, drawn["fpr"], drawn["tpr"]) for _, drawn in table.groupby("draw")]
                 for arm, table in curves.groupby("arm")}
        behind = [(grid, line) for draws in lines.values() for line in draws]
        return cls(metrics, [DrawnChart(f"{meaning}, AUC {metrics[f'auc_{arm}']:.3f}", draw(Chart(
            meaning, grid, np.mean(lines[arm], axis=0), "false positive rate", "true positive rate", behind=behind,
            x_range=(0.0, 1.0), y_range=(0.0, 1.0)))) for arm, meaning in ARMS.items()])

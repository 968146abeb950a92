"""IoU over the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from flipside.masks.extraction.thresholds import HEADLINE
from flipside.report.charts import Chart, DrawnChart, draw
from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section


@dataclass(frozen=True)
class Thresholds(Section):
    """One small chart per method with all others behind it; only where there are lesion masks."""

    id = "thresholds"
    link = "Thresholds"
    heading = "IoU over the threshold"

    charts: list[DrawnChart]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        if inputs.curves.empty:
            return None
        curves = {name: table.sort_values("threshold") for name, table in inputs.curves.groupby("method")}
        lines = [(table["threshold"].to_numpy(), table["iou"].to_numpy()) for table in curves.values()]
        top = max(1e-6, 1.05 * max([float(inputs.curves["iou"].max()), *(
            result.metrics.get(f"iou_{HEADLINE}", 0.0) for result in inputs.results.values())]))
        x_range = (float(inputs.curves["threshold"].min()), float(inputs.curves["threshold"].max()))
        charts = []
        for name, result in inputs.results.items():
            if name not in curves:
                continue
            x, y = curves[name]["threshold"].to_numpy(), curves[name]["iou"].to_numpy()
            marks = [(policy, chosen, float(np.interp(chosen, x, y))) for policy in ("val", "oracle")
                     if isinstance(chosen := result.thresholds.get(policy), float)]
            reached = result.metrics.get(f"iou_{HEADLINE}")
            charts.append(DrawnChart(name, draw(Chart(name, x, y, "threshold", "IoU", behind=lines, marks=marks,
                                                  level=None if reached is None else ("label-free", reached),
                                                  x_range=x_range, y_range=(0.0, top)))))
        return cls(charts)

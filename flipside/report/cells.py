"""Numbers as the page's tables show them: text, interval, and a title that says what a number rests on."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from flipside.metrics import registry
from flipside.report import charts
from flipside.report.inputs import ReportInputs, Result
from flipside.report.tables import MISSING, interval, number, spread_text
from flipside.report.trainings import EMPTY, Trainings


@dataclass(frozen=True)
class Cell:
    """One number of a table; its title says what it rests on, or why it is missing."""

    text: str
    value: float | None  # what the table is sorted by
    bounds: str
    title: str
    trainings: str = ""
    """Mean and range over trainings of the generators, where there are several."""


def metric_cell(result: Result, metric: str, trainings: Trainings = EMPTY) -> Cell:
    """A method's metric; with a star where the stage that measured it has a caution."""
    value = result.metrics.get(metric)
    if value is None:
        return Cell(MISSING, None, "", registry.why_missing(metric, result.has_counterfactual, result.missing))
    images = result.explanations.timing["images"]
    n = images if metric == "seconds_per_image" else registry.count(result.metrics, metric)
    title = f"{registry.label(metric)} of {result.name}"
    if n is not None and not metric.startswith("n_"):
        title += f", n = {n}"
    if bounds := interval(result.metrics, metric):
        title += f", interval {number(bounds[0])} to {number(bounds[1])}"
    if spread := spread_text(trainings, "generators", result.name, metric):
        title += f", over {trainings.count('generators')} trainings mean {spread}"
    caution = result.cautions.get(metric)
    return Cell(number(value) + ("*" if caution else ""), value, bounds_text(bounds),
                f"{title}. {caution}" if caution else title, spread)


def bounds_text(bounds: tuple[float, float] | None) -> str:
    """An interval as it stands beside its number; empty where there is none."""
    return "" if bounds is None else f"{number(bounds[0])}–{number(bounds[1])}"


def ranked_scale(inputs: ReportInputs) -> float:
    """End of the scale on which the ranked metric is drawn: the greatest value, interval's end or oracle."""
    rank_by = inputs.rank_by
    ranked = [values for values in inputs.metrics.values() if rank_by in values]
    reach = [values[rank_by] for values in ranked]
    reach += [(interval(values, rank_by) or (0, 0))[1] for values in ranked]
    return max(reach + [values.get("iou_oracle", 0.0) for values in ranked if rank_by.startswith("iou_")])


def draw_ranked(values: dict[str, float], rank_by: str, largest: float) -> Markup:
    """The ranked metric of one method with its interval and, for an IoU, the oracle's; empty without the metric."""
    if rank_by not in values:
        return Markup()
    oracle = values.get("iou_oracle") if rank_by.startswith("iou_") else None
    return charts.draw_interval(values[rank_by], interval(values, rank_by), oracle, largest)

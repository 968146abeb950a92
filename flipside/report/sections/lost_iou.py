"""What each method's IoU is lost to, and so what could be improved next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from markupsafe import Markup

from flipside.masks.extraction.thresholds import HEADLINE
from flipside.metrics import registry
from flipside.metrics.families.lost_iou import LostIou
from flipside.report.badges import badge
from flipside.report.cells import Cell, metric_cell
from flipside.report.charts import draw_parts
from flipside.report.inputs import ReportInputs, Result
from flipside.report.sections.section import Section
from flipside.report.tables import interval, number

IOU, LOST = f"iou_{HEADLINE}", LostIou.columns
# How a sentence calls each part, and what would win it back.
CAUSES = {
    "lost_to_under_segmentation": ("under-segmentation", "masks that leave out no lesion pixel"),
    "lost_to_over_segmentation": ("over-segmentation", "masks that mark nothing beside the lesion"),
    "lost_to_wrong_place": ("the wrong place", "masks that always meet the lesion"),
    "lost_to_classifier": ("the classifier", "a classifier that calls no slice with a lesion healthy"),
}


@dataclass(frozen=True)
class Part:
    """Head of one part's column."""

    name: str  # of the metric; CSS class of its colour too
    label: str
    meaning: str


@dataclass(frozen=True)
class LostRow:
    """One method: its IoU and the parts of what is lost, which add up to 1."""

    name: str
    control: bool
    badge: str
    drawing: Markup
    cells: list[Cell]


@dataclass(frozen=True)
class LostIous(Section):
    """Methods down, best first, the parts across; only where there are lesion masks."""

    id = "lost_iou"
    link = "Lost IoU"
    heading = "What the IoU is lost to"

    parts: list[Part]
    rows: list[LostRow]
    leading: list[str]  # sentences on the best method

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        results = results_with_lost_iou(inputs)
        if not results:
            return None
        names = (IOU, *LOST)
        rows = [LostRow(result.name, result.is_control,
                        badge(result.name, result.metrics, inputs.params.controls, "{}"),
                        draw_parts({name: result.metrics[name] for name in names}),
                        [metric_cell(result, name) for name in names]) for result in results]
        methods = [result for result in results if not (result.is_control or result.is_upper_bound)]
        return cls([Part(name, registry.label(name), registry.meaning(name)) for name in names], rows,
                   describe_lost_iou(methods[0]) if methods else [])


def results_with_lost_iou(inputs: ReportInputs) -> list[Result]:
    """The methods whose lost IoU was measured, best first; none where the data set has no lesion masks."""
    return [result for result in inputs.results.values() if {IOU, *LOST} <= result.metrics.keys()]


def describe_lost_iou(result: Result) -> list[str]:
    """What one method's IoU is lost to, and what could gain most of it.

    A mask without its false positives gains tp / (tp + fn) - tp / union, which is never more than fp / union: so each
    part is the most that its remedy can gain while all else stays.
    """
    lost = {name: result.metrics[name] for name in LOST}
    told = [f"{stated(result, name)} to {CAUSES[name][0]}" for name, value in lost.items() if value > 0]
    if not told:
        return [f"{result.name} loses nothing: every mask is the lesion."]
    none = [CAUSES[name][0] for name, value in lost.items() if value == 0]
    nothing = f"; nothing to {' or '.join(none)}" if none else ""
    largest = max(lost, key=lambda name: lost[name])
    cause, remedy = CAUSES[largest]
    return [f"{result.name} loses {number(sum(lost.values()))} of an IoU of 1: {', '.join(told)}{nothing}.",
            f"The largest part goes to {cause}: {remedy} would gain {number(lost[largest])} at most, all else "
            "unchanged."]


def stated(result: Result, name: str) -> str:
    """A metric's number with its interval."""
    bounds = interval(result.metrics, name)
    return number(result.metrics[name]) + (f" ({number(bounds[0])} to {number(bounds[1])})" if bounds else "")

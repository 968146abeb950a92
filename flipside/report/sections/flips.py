"""Flips that keep the image: how many there are under each bound on the change, and what the leading methods do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pandas as pd

from flipside.core.params import value_at
from flipside.metrics.families.bounded_flips import flips_of_both
from flipside.metrics.registry import count, label
from flipside.report.cases import spread_cases
from flipside.report.charts import Chart, DrawnChart, draw
from flipside.report.inputs import ReportInputs, Result
from flipside.report.pictures import DIFFERENCE, DIFFERENCE_LIMIT, case_pictures, data_uri
from flipside.report.sections.section import Section
from flipside.report.shown_cases import Panel
from flipside.report.tables import interval, number, ranking

RATE, BEYOND = "bounded_flip_rate", "flips_beyond_bound"
SHOWN_METHODS, SHOWN_SLICES = 3, 3  # besides the best control
PLACES = {"best": "least changed", "worst": "most changed"}


@dataclass(frozen=True)
class FlipRow:
    """One method's flips in numbers."""

    name: str
    control: bool
    text: str


@dataclass(frozen=True)
class FlippedSlice:
    """One slice: the scan, then counterfactual and change of each shown method."""

    place: str
    slice_id: str
    panels: list[Panel]


@dataclass(frozen=True)
class Flips(Section):
    """One small chart per method that makes counterfactuals, best first, with all others behind it, controls dashed."""

    id = "flips"
    link = "Flips"
    heading = "Flips that keep the image"

    bound: float
    rows: list[FlipRow]
    charts: list[DrawnChart]
    shown: list[str]  # methods whose pictures follow
    slices: list[FlippedSlice]
    difference_limit: float

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        """None where no method makes counterfactuals, or both networks call no test slice abnormal."""
        results = rank_flips(inputs)
        if not results:
            return None
        bound = float(value_at(inputs.parameters, "evaluate.change_bound"))
        shown = [result for result in results if not result.is_control][:SHOWN_METHODS]
        shown += [result for result in results if result.is_control][:1]
        return cls(bound, [FlipRow(result.name, result.is_control, describe_flips(result)) for result in results],
                   draw_charts(inputs, results, bound), [result.name for result in shown],
                   show_slices(inputs, shown, bound), DIFFERENCE_LIMIT)


def rank_flips(inputs: ReportInputs) -> list[Result]:
    """The methods that have a rate of bounded flips, best first."""
    metrics = {result.name: result.metrics for result in inputs.with_counterfactual() if RATE in result.metrics}
    return [inputs.results[name] for name in ranking(metrics, RATE)] if metrics else []


def describe_flips(result: Result) -> str:
    """How many flips count, and how many more there are that change too much."""
    values, asked = result.metrics, count(result.metrics, RATE)
    bounds = interval(values, RATE)
    text = f"{label(RATE)} {number(values[RATE])}"
    text += f" ({bounds[0]:.3f} to {bounds[1]:.3f}), n = {asked}" if bounds else f", n = {asked}"
    if BEYOND not in values:
        return f"{text}; flips none for both networks"
    flips = int(values[f"n_{BEYOND}"])
    beyond = round(values[BEYOND] * flips)
    if beyond == flips:
        return f"{text}; flips, but by destroying the image: {beyond} of {flips} changes exceed the bound"
    return f"{text}; {beyond} of {flips} changes exceed the bound"


def draw_charts(inputs: ReportInputs, results: list[Result], bound: float) -> list[DrawnChart]:
    """A chart per method of reports/flips_by_bound.csv."""
    curves = {result.name: inputs.flips[inputs.flips["method"] == result.name] for result in results}
    lines = {name: (curve["bound"].to_numpy(float), curve[RATE].to_numpy(float)) for name, curve in curves.items()}
    behind, dashed = ([lines[result.name] for result in results if result.is_control == control]
                      for control in (False, True))
    return [DrawnChart(result.name, draw(Chart(result.name, *lines[result.name], "greatest change", label(RATE),
                                               behind=behind, dashed=dashed, limit=bound, y_range=(0.0, 1.0))))
            for result in results]


def show_slices(inputs: ReportInputs, shown: list[Result], bound: float) -> list[FlippedSlice]:
    """Slices that both networks call abnormal, from the least to the most changed by the first of the methods."""
    cases = shown[0].cases[flips_of_both(shown[0].cases)[0]].set_index("slice_id")
    chosen = spread_cases(cases["change_to_blur"], SHOWN_SLICES, best_is_high=False)
    slices = []
    for place, slice_id in chosen:
        panels: list[Panel] = []
        for result in shown:
            pictures = case_pictures(inputs, result, slice_id)
            case = result.cases.set_index("slice_id").loc[slice_id]
            panels += [] if panels else [Panel("scan", data_uri(pictures["scan"]), _said(case, ""))]
            made, change = data_uri(pictures["counterfactual"]), data_uri(pictures[DIFFERENCE])
            panels += [Panel(f"{result.name}: counterfactual", made, _said(case, "_cf")),
                       Panel(f"{result.name}: change", change, _judged(case, bound))]
        slices.append(FlippedSlice(PLACES.get(place, place), slice_id, panels))
    return slices


def _said(case: pd.Series, suffix: str) -> str:
    """Both networks' probabilities of abnormal."""
    return f"{case[f'f_x{suffix}']:.2f}, judge {case[f'judge_x{suffix}']:.2f}"


def _judged(case: pd.Series, bound: float) -> str:
    kept = case["change_to_blur"] <= bound
    flipped = bool(flips_of_both(case.to_frame().T)[1].iloc[0])
    return f"{case['change_to_blur']:.2f}: " + ("counts" if flipped and kept else "too much" if flipped else "no flip")

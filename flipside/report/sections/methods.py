"""Each method's pictures: best, median and worst lesion slice, healthy slices, and what else the method wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from markupsafe import Markup

from flipside.core.store import RGB
from flipside.masks.extraction.thresholds import describe
from flipside.report.cases import healthy_cases, lesion_cases
from flipside.report.channels import shown_channel
from flipside.report.charts import draw_strip
from flipside.report.extras import EXTRAS
from flipside.report.extras.extra import Extra
from flipside.report.inputs import ReportInputs, Result
from flipside.report.pictures import DIFFERENCE_LIMIT
from flipside.report.sections.section import Section
from flipside.report.shown_cases import ShownCase, show_case

HEALTHY_CASES = 2


@dataclass(frozen=True)
class MethodCases:
    """One method."""

    name: str
    control: bool
    files: bool  # maps that were made elsewhere
    has_counterfactual: bool
    n: int  # lesion slices with a score
    strip: Markup  # drawing of those scores; empty without any
    threshold: str  # empty without lesion masks
    lesion: list[ShownCase]
    healthy: list[ShownCase]
    extras: list[Extra]


@dataclass(frozen=True)
class Methods(Section):
    """The methods one after the other, best first."""

    id = "methods"
    link = "Methods"
    heading = "Method by method"

    has_lesion_masks: bool
    policy: str
    difference_limit: float
    channels: str  # which there are and what pictures show of them; empty for slices of a single one
    methods: list[MethodCases]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        return cls(inputs.has_lesion_masks, inputs.params.policy, DIFFERENCE_LIMIT, describe_channels(inputs),
                   [show_method(inputs, result) for result in inputs.results.values()])


def describe_channels(inputs: ReportInputs) -> str:
    """Which channels the slices have, where there are several, and what the pictures show of them."""
    names = inputs.channel_names
    if len(names) == 1:
        return ""
    shown = "them in colour" if tuple(names) == RGB else f"{names[shown_channel(names)]} alone"
    return (f"Slices have {len(names)} channels ({', '.join(names)}); pictures show {shown}, a difference is the "
            "mean over all of them.")


def show_method(inputs: ReportInputs, result: Result) -> MethodCases:
    """One method's scores and pictures."""
    column, rows = inputs.iou_column, result.cases
    scores = rows.loc[rows["label"] == 1, column].dropna().to_numpy() if column in rows else np.empty(0)
    extras = [extra for show in EXTRAS if (extra := show(inputs, result)) is not None]
    return MethodCases(
        name=result.name, control=result.is_control, files=result.is_from_files,
        has_counterfactual=result.has_counterfactual, n=len(scores),
        strip=draw_strip(scores, f"IoU {inputs.params.policy}") if len(scores) else Markup(),
        threshold=describe(chosen) if (chosen := result.thresholds.get(inputs.params.policy)) is not None else "",
        lesion=[show_case(inputs, result, *case) for case in lesion_cases(inputs, result)],
        healthy=[show_case(inputs, result, *case) for case in healthy_cases(rows, HEALTHY_CASES)], extras=extras)

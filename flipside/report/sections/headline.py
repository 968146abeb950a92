"""The answer at the top of the page: which method, how sure, and where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pandas as pd
from markupsafe import Markup

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.params import value_at
from flipside.metrics import registry
from flipside.report import sureness, tables
from flipside.report.cells import bounds_text, draw_ranked, ranked_scale
from flipside.report.inputs import CaseCounts, ReportInputs, Result
from flipside.report.pictures import data_uri, result_picture
from flipside.report.sections.patients import patient_means
from flipside.report.sections.sizes import describe_sizes
from flipside.report.shown_cases import Panel

SHOWN_METHODS = 3  # besides the best control
WORST_CASES = 3


@dataclass(frozen=True)
class IntervalRow:
    """The ranked metric of one method."""

    name: str
    control: bool
    text: str
    bounds: str
    drawing: Markup


@dataclass(frozen=True)
class BestMethod:
    """The best method that is no control: what goes wrong with it, in words and pictures."""

    name: str
    failures: list[str]
    worst: list[Panel]


@dataclass(frozen=True)
class Headline:
    """The page's title and its first screen."""

    title: str
    dataset: str
    profile: str
    counts: CaseCounts
    supervision: str | None  # the warning where a classifier of the run was shown lesion masks
    rank_label: str
    rank_meaning: str
    controls_lead: bool  # no method beats the controls
    which: list[str]
    sure: list[str]
    rows: list[IntervalRow]
    best: BestMethod | None

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        rank_by, metrics, controls = inputs.rank_by, inputs.metrics, inputs.params.controls
        ranked = [result for result in inputs.results.values()
                  if rank_by in result.metrics and not result.is_upper_bound]
        methods = [result for result in ranked if not result.is_control]
        controls_lead = bool(methods) and ranked[0].is_control
        sure = tables.against_control(metrics, rank_by, controls)
        return cls(
            title=inputs.params.title, dataset=inputs.parameters["dataset"], profile=inputs.parameters["profile"],
            counts=inputs.count_cases(), rank_label=registry.label(rank_by), rank_meaning=registry.meaning(rank_by),
            supervision=tables.STRONG if tables.is_strongly_supervised(metrics) else None, controls_lead=controls_lead,
            which=tables.leader(metrics, rank_by, controls)[1 if controls_lead else 0:],  # the first is the heading
            sure=sure + (describe_spread(inputs, methods[0]) if methods else []) + describe_trainings(inputs),
            rows=interval_rows(inputs, ranked),
            best=describe_best(inputs, methods[0]) if methods else None)


def interval_rows(inputs: ReportInputs, ranked: list[Result]) -> list[IntervalRow]:
    """The ranked metric of the first methods and the best control, drawn on the scale of the whole ranking."""
    methods = [result.name for result in ranked if not result.is_control][:SHOWN_METHODS]
    controls = [result.name for result in ranked if result.is_control][:1]
    largest = ranked_scale(inputs)
    return [IntervalRow(result.name, result.is_control, tables.number(result.metrics[inputs.rank_by]),
                        bounds_text(tables.interval(result.metrics, inputs.rank_by)),
                        draw_ranked(result.metrics, inputs.rank_by, largest))
            for result in ranked if result.name in (*methods, *controls)]


def describe_best(inputs: ReportInputs, result: Result) -> BestMethod:
    """The best method with its failures, and its worst cases where there are lesion masks."""
    worst = worst_cases(result, inputs.iou_column) if inputs.has_lesion_masks else []
    return BestMethod(result.name, describe_failures(inputs, result), [
        Panel(f"mask of {result.name}, slice {slice_id}", data_uri(result_picture(inputs, result, slice_id)),
              f"IoU {score:.3f}") for slice_id, score in worst])


def scored_cases(result: Result, column: str) -> pd.DataFrame:
    """A method's lesion slices that have this score, as rows of cases.csv."""
    return result.cases[(result.cases["label"] == 1) & result.cases[column].notna()]


def worst_cases(result: Result, column: str) -> list[tuple[str, float]]:
    """(slice_id, IoU) of the lowest IoUs, one per patient while there are others; of equal ones the largest lesion."""
    table = scored_cases(result, column).sort_values([column, "lesion_px", "slice_id"], ascending=[True, False, True])
    table = table.assign(again=table["patient_id"].duplicated()).sort_values("again", kind="stable").head(WORST_CASES)
    table = table.sort_values(column, kind="stable")
    return list(zip(table["slice_id"], table[column], strict=True))


def describe_spread(inputs: ReportInputs, result: Result) -> list[str]:
    """How far the patients lie apart, and whether they are too few for the interval."""
    if not inputs.has_lesion_masks:
        return []
    means = patient_means(result, inputs.iou_column)
    if len(means) == 1:
        return ["All lesion slices are of one patient: nothing here says how another would come out."]
    sentence = f"Between the {len(means)} patients the mean IoU ranges from {means.min():.3f} to {means.max():.3f}."
    return [sentence, *tables.few_patients(inputs.metrics)]


def describe_trainings(inputs: ReportInputs) -> list[str]:
    """How far other trainings come out, and which differences stand; that there was one training, where that is so."""
    if inputs.trainings.series:
        return sureness.sentences(inputs.metrics, inputs.rank_by, inputs.params.controls, inputs.trainings,
                                  value_at(inputs.parameters, "evaluate.confidence"))
    return [tables.one_or_several(inputs.trainings, inputs.ignored_trainings)]


def describe_failures(inputs: ReportInputs, result: Result) -> list[str]:
    """What goes wrong with one method, each with its count: missed lesions, sizes, false alarms, no flip."""
    sentences = []
    if inputs.has_lesion_masks:
        lesion = scored_cases(result, inputs.iou_column)
        missed = lesion[lesion[inputs.iou_column] == 0]
        sentence = f"Misses the lesion altogether (IoU 0) in {len(missed) or 'none'} of {len(lesion)} lesion slices"
        if len(missed):
            unseen = int((missed["f_x"] < CALLED_ABNORMAL).sum())
            sentence += f"; the classifier itself calls {unseen} of these healthy"
        sentences.append(sentence + ".")
        sentences += describe_worst_size(inputs, result)
        sentences += count_false_alarms(result)
    return sentences + count_unflipped(result) + count_destroyed(result)


def describe_worst_size(inputs: ReportInputs, result: Result) -> list[str]:
    """The lesion sizes with the lowest and the highest mean IoU, where there are at least two groups."""
    table = inputs.subgroups
    table = table[(table["method"] == result.name) & (table["n_cases"] > 0)].sort_values("iou", kind="stable")
    if len(table) < 2:
        return []
    groups = list(table.itertuples())
    told = [f"{group.size_group} lesions ({describe_sizes(group.low_mm2, group.high_mm2)}): IoU {group.iou:.3f}, "
            f"n = {group.n_cases}" for group in (groups[0], groups[-1])]
    return [f"Worst on {told[0]}; best on {told[1]}."]


def count_false_alarms(result: Result) -> list[str]:
    """On how many healthy slices the method marks something."""
    healthy = result.cases.loc[result.cases["label"] == 0, "slice_id"]
    if healthy.empty:
        return ["No healthy slice in the test split, so false alarms are unknown."]
    assert result.masks is not None
    marked = sum(bool(result.masks[result.row_of[slice_id]].any()) for slice_id in healthy)
    return [f"Marks something on {marked} of {len(healthy)} healthy slices."]


def count_unflipped(result: Result) -> list[str]:
    """How many counterfactuals the classifier, and the judge, still call abnormal, of those called so before."""
    told = []
    for rate, role in (("success_rate", "classifier"), ("judge_flip_rate", "judge")):
        n = registry.count(result.metrics, rate)
        if rate in result.metrics and n is not None:
            told.append(f"{n - round(result.metrics[rate] * n)} of {n} by the {role}")
    return [f"Counterfactuals still called abnormal: {', '.join(told)}."] if told else []


def count_destroyed(result: Result) -> list[str]:
    """How many of its flips change more than the bound allows."""
    share, flips = result.metrics.get("flips_beyond_bound", 0), registry.count(result.metrics, "flips_beyond_bound")
    return [f"Changes more than evaluate.change_bound in {round(share * flips)} of {flips} flips."] if (
        share and flips) else []

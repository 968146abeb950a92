"""Which slices the report shows: (place, slice_id) from best to worst, where lesion masks say which is which."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from flipside.report.inputs import ReportInputs, Result


def spread_cases(scores: pd.Series, count: int, best_is_high: bool = True) -> list[tuple[str, str]]:
    """`count` slices from best to worst at even steps of rank, as (place, slice_id); one alone is the median.

    `scores` has the slice_id as its index; ties go by slice_id, so the choice is always the same.
    """
    table = scores.rename("score").rename_axis("slice_id").reset_index()
    table = table.sort_values(["score", "slice_id"], ascending=[not best_is_high, True])
    total = len(table)
    if total == 0:
        return []
    steps = np.linspace(0, total - 1, count) if count > 1 else np.array([(total - 1) / 2])
    names = {0: "best", total - 1: "worst", (total - 1) // 2: "median"} if total > 2 else {}
    return [(names.get(int(place), f"{place + 1} of {total}"), table["slice_id"].iloc[place])
            for place in np.unique(np.floor(steps).astype(int))]


def unranked_cases(slice_ids: Iterable[str], count: int) -> list[tuple[str, str]]:
    """`count` of these slices at even steps, as ("case 1", slice_id), ...: nothing says which is better."""
    spread = spread_cases(pd.Series(0.0, index=list(slice_ids)), count)
    return [(f"case {place}", slice_id) for place, (_, slice_id) in enumerate(spread, start=1)]


def lesion_cases(inputs: ReportInputs, result: Result, count: int = 3) -> list[tuple[str, str]]:
    """A method's best .. worst lesion slices by IoU; evenly spread ones where the data set has no lesion masks."""
    rows = result.cases[result.cases["label"] == 1].set_index("slice_id")
    if result.masks is None:
        return unranked_cases(rows.index, count)
    return spread_cases(rows.loc[rows["lesion_px"] > 0, inputs.iou_column], count)


def shared_cases(inputs: ReportInputs) -> list[tuple[str, str]]:
    """`report.gallery_cases` lesion slices from easiest to hardest by the mean IoU of the methods that are no controls;
    evenly spread ones where the data set has no lesion masks."""
    rows = _without_controls(inputs, inputs.cases[inputs.cases["label"] == 1])
    count = inputs.params.gallery_cases
    if not inputs.has_lesion_masks:
        return unranked_cases(rows["slice_id"].unique(), count)
    names = {"best": "easiest", "worst": "hardest"}
    scores = rows[rows["lesion_px"] > 0].groupby("slice_id")[inputs.iou_column].mean()
    return [(names.get(place, place), slice_id) for place, slice_id in spread_cases(scores, count)]


def shared_healthy_cases(inputs: ReportInputs) -> list[tuple[str, str]]:
    """`report.healthy_cases` healthy slices, from the least to the most marked by the methods that are no controls."""
    return healthy_cases(_without_controls(inputs, inputs.cases), inputs.params.healthy_cases)


def healthy_cases(cases: pd.DataFrame, count: int) -> list[tuple[str, str]]:
    """Healthy slices from the least to the most falsely marked area, mean over the methods in `cases`; evenly spread
    ones where no area was measured (the data set has no lesion masks)."""
    healthy = cases[cases["label"] == 0]
    measured = healthy.dropna(subset=["fp_area"])
    if measured.empty:
        return unranked_cases(healthy["slice_id"].unique(), count)
    names = {"best": "least marked", "worst": "most marked"}
    spread = spread_cases(measured.groupby("slice_id")["fp_area"].mean(), count, best_is_high=False)
    return [(names.get(place, place), slice_id) for place, slice_id in spread]


def _without_controls(inputs: ReportInputs, cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of cases.csv of methods that are neither controls nor an upper bound; all rows where there are no
    others."""
    bounds = [result.name for result in inputs.results.values() if result.is_upper_bound]
    rows = cases[~cases["method"].isin([*inputs.params.controls, *bounds])]
    return rows if len(rows) else cases

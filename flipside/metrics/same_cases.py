"""Whether all methods were measured on the same cases."""

from __future__ import annotations

import pandas as pd

from flipside.metrics.evaluation import EvaluationError

SCORED = ("iou_val", "pixel_ap", "f_x")  # columns of cases.csv that have a value in the same rows for every method
SHARED = ("f_x", "judge_x")  # columns that say something of the slice, not of the method
ROUNDING = 1e-3  # the same classifier on another device answers this close


def check_same_cases(tables: dict[str, pd.DataFrame], reference: str) -> None:
    """Refuse methods that are scored on other cases than the reference, naming the first of them.

    tables: {method: rows of cases.csv}. What depends on the slice alone (f(x), the judge's answer to x) must agree too:
    the populations that follow from it are then the same for every method.
    """
    base = tables[reference]
    for method, cases in tables.items():
        for name in SCORED:
            scored, expected = cases[name].notna(), base[name].notna()
            if not (cases["slice_id"].equals(base["slice_id"]) and scored.equals(expected)):
                raise EvaluationError(f"method {method} has {name} on {scored.sum()} cases, {reference} on "
                                      f"{expected.sum()}, and they are not the same: "
                                      f"run `dvc repro extract_masks@{method}`")
        for name in SHARED:
            difference = (cases[name] - base[name]).abs()  # NaN where one of the two makes no counterfactual
            if (difference > ROUNDING).any():
                raise EvaluationError(f"method {method}: {name} of slice {cases['slice_id'][difference.idxmax()]} is "
                                      f"not that of {reference}: they are of different runs, run "
                                      f"`dvc repro explain@{method} judge_counterfactuals`")

"""Which slices are shown."""

from __future__ import annotations

import pandas as pd

from flipside.report.cases import spread_cases


def test_best_median_and_worst_are_the_right_slices_with_stable_ties():
    scores = pd.Series({"d": 0.1, "a": 0.9, "c": 0.5, "b": 0.5, "e": 0.0})
    assert spread_cases(scores, 3) == [("best", "a"), ("median", "c"), ("worst", "e")]
    assert spread_cases(scores.iloc[::-1], 3) == spread_cases(scores, 3)
    assert spread_cases(scores.iloc[:0], 3) == []

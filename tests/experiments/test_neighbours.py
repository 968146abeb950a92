"""Neighbours in the ranking, against the comparison with the reference method that evaluate makes."""

import numpy as np
import pandas as pd
import pytest

from flipside.experiments.neighbours import compare_neighbours
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.reference_comparison import ReferenceComparison

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=300, confidence=0.95, reference_method="b")


def cases(patients=8):
    generator, rows = np.random.default_rng(2), 6 * patients
    ids = pd.DataFrame({"slice_id": [f"s{n}" for n in range(rows)],
                        "patient_id": [f"p{n % patients}" for n in range(rows)]})
    healthy = np.where(np.arange(rows) % 4 == 0, np.nan, 0)
    tables = [ids.assign(method=method, iou_label_free=mean + healthy + 0.1 * generator.random(rows))
              for method, mean in (("a", 0.6), ("b", 0.58), ("c", 0.1))]
    return pd.concat(tables).assign(iou_val=lambda table: table["iou_label_free"])  # the other compared policy


def test_neighbours_are_compared_as_methods_are_with_the_reference():
    table = cases()
    found = compare_neighbours(table.sample(frac=1, random_state=0), ["a", "b", "c"], "iou_label_free", PARAMS, 5)
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("b", "c")]
    by_method = {method: own.reset_index(drop=True) for method, own in table.groupby("method")}
    reference = ReferenceComparison().compare(by_method, PARAMS, 5)
    for pair, values, sign in ((found[0], reference["a"], 1), (found[1], reference["c"], -1)):
        assert pair.difference == pytest.approx(sign * values["iou_label_free_difference"])
        bounds = sorted(sign * values[f"iou_label_free_difference_ci_{side}"] for side in ("low", "high"))
        assert (pair.low, pair.high) == pytest.approx(bounds, abs=0.01)
        assert pair.p_holm == pytest.approx(values["wilcoxon_patients_p_holm"])


def test_nothing_is_compared_without_numbers_by_slice_or_with_one_patient():
    assert compare_neighbours(cases(), ["a", "b"], "judge_flip_rate", PARAMS, 5) == []
    assert compare_neighbours(cases(patients=1), ["a", "b"], "iou_label_free", PARAMS, 5) == []
    assert compare_neighbours(cases(), ["a"], "iou_label_free", PARAMS, 5) == []

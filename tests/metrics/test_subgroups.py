import numpy as np
import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.subgroups import COLUMNS, subgroups

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")


def cases(areas, ious, patients=None):
    count = len(areas)
    return pd.DataFrame({
        "label": 1, "lesion_px": 5, "lesion_mm2": np.asarray(areas, float), "iou_label_free": ious,
        "pixel_ap": np.asarray(ious) / 2, "patient_id": patients or [f"p{n}" for n in range(count)]})


def test_lesions_are_parted_into_thirds_by_their_area():
    ious = [0.1, 0.2, 0.6, 0.7, 0.9, 1.0]
    table = subgroups({"a": cases([10, 20, 30, 40, 50, 60], ious)}, PARAMS, 0)
    assert list(table) == COLUMNS and table["size_group"].tolist() == ["small", "medium", "large"]
    assert table["n_cases"].tolist() == table["n_patients"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(table["iou"], [0.15, 0.65, 0.95])
    np.testing.assert_allclose(table["pixel_ap"], [0.075, 0.325, 0.475])
    assert table["high_mm2"].tolist() == [20, 40, 60] and table["low_mm2"].tolist() == [10, 20, 40]
    assert (table["iou_ci_low"] <= table["iou"]).all() and (table["iou"] <= table["iou_ci_high"]).all()


def test_healthy_and_vanished_cases_are_in_no_group_and_edges_are_the_same_for_all_methods():
    lesion = cases([10, 20, 30], [0.1, 0.5, 0.9])
    healthy = cases([900, 0], [np.nan, np.nan]).assign(label=[0, 1], lesion_px=[40, 0])
    table = subgroups({"a": pd.concat([lesion, healthy]), "b": pd.concat([lesion.assign(iou_label_free=0.0), healthy])},
                      PARAMS, 0)
    assert table["n_cases"].tolist() == [1] * 6
    edges = table[["size_group", "low_mm2", "high_mm2"]]
    assert edges[:3].equals(edges[3:].reset_index(drop=True)) and edges["high_mm2"].max() == 30
    assert (table.loc[table["method"] == "b", "iou"] == 0).all()


def test_a_group_of_one_patient_has_no_interval():
    table = subgroups({"a": cases([10, 11, 50, 51, 90, 91], [0.5] * 6, ["p", "p", "p", "q", "q", "r"])}, PARAMS, 0)
    assert table["n_patients"].tolist() == [1, 2, 2]
    assert table["iou_ci_low"].isna().tolist() == table["iou_ci_high"].isna().tolist() == [True, False, False]


def test_lesions_of_one_size_leave_two_groups_empty_and_say_so():
    table = subgroups({"a": cases([7, 7, 7], [0.2, 0.4, 0.6])}, PARAMS, 0)
    assert table["n_cases"].tolist() == [3, 0, 0] and table["iou"].iloc[0] == pytest.approx(0.4)
    assert table["iou"].isna().tolist() == [False, True, True]


def test_without_lesion_cases_there_is_a_header_alone():
    assert list(subgroups({}, PARAMS, 0)) == COLUMNS and len(subgroups({}, PARAMS, 0)) == 0

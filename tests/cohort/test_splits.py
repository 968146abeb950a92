import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipside.cohort.splits import SplitError, check_classes, patient_table, split_given, split_patients, volume_bins


def patients(volumes: list[float], groups: list[int] | None = None, slices: list[int] | None = None) -> pd.DataFrame:
    names = [f"p{number}" for number in range(len(volumes))]
    return pd.DataFrame({
        "slices": slices or [5] * len(volumes), "healthy": True, "abnormal": [volume > 0 for volume in volumes],
        "volume": volumes, "group": groups or list(range(len(volumes))),
    }, index=names)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_part_gets_patients_and_no_group_is_divided(data):
    count = data.draw(st.integers(3, 40))
    volumes = data.draw(st.lists(st.sampled_from([0.0, 0.0, 5.0, 10.0, 200.0, 3000.0]), min_size=count, max_size=count))
    groups = data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count))
    groups[:3] = [count, count + 1, count + 2]  # at least three groups
    slices = data.draw(st.lists(st.integers(1, 30), min_size=count, max_size=count))
    table = patients(volumes, groups, slices)
    split = split_patients(table, 0.15, 0.2, seed=data.draw(st.integers(0, 9)))
    assert set(split) == set(table.index)
    parts = pd.Series(split)
    assert set(parts) == {"train", "val", "test"}
    assert (parts.groupby(table["group"]).nunique() == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_every_part_gets_both_classes_where_three_patients_of_each_exist(seed):
    table = patients([0.0] * 11 + [10.0, 500.0, 9000.0])
    table["healthy"] = table["volume"] == 0
    split = pd.Series(split_patients(table, 0.2, 0.2, seed))
    for part in ("train", "val", "test"):
        members = table[split[table.index] == part]
        assert members["abnormal"].any() and members["healthy"].any()


def test_training_is_served_first_when_a_class_has_too_few_patients():
    table = patients([0.0] * 12 + [10.0, 500.0])
    split = pd.Series(split_patients(table, 0.2, 0.2, 0))
    assert {split["p12"], split["p13"]} == {"train", "test"}


def test_lesion_volumes_are_spread_over_the_parts():
    table = patients([0.0] * 40 + list(np.geomspace(10, 1e6, 60)))
    split = pd.Series(split_patients(table, 0.2, 0.2, 0))
    for part, wanted in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        members = table[split[table.index] == part]
        assert len(members) / 100 == pytest.approx(wanted, abs=0.04)
        assert (members["volume"] == 0).sum() == pytest.approx(40 * wanted, abs=2)
        assert (members["volume"] > 1e4).sum() == pytest.approx((table["volume"] > 1e4).sum() * wanted, abs=3)


def test_bins_are_quartiles_beside_the_patients_without_a_lesion():
    bins = volume_bins(patients([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), folds=2)
    assert bins.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert volume_bins(patients([0.0, 1.0, 2.0]), folds=5).tolist() == [0, 1, 1]


def test_the_seed_decides_and_repeats():
    table = patients([0.0] * 15 + [float(volume) for volume in range(1, 16)])
    first = split_patients(table, 0.2, 0.2, 3)
    assert split_patients(table, 0.2, 0.2, 3) == first
    assert any(split_patients(table, 0.2, 0.2, seed) != first for seed in range(4, 8))


def test_too_few_patients_or_groups_are_refused_with_counts():
    with pytest.raises(SplitError, match="1 patients in 1 groups"):
        split_patients(patients([5.0]), 0.2, 0.2, 0)
    with pytest.raises(SplitError, match="6 patients in 2 groups .* .30 slices."):
        split_patients(patients([5.0] * 6, [0, 0, 0, 1, 1, 1]), 0.2, 0.2, 0)


def test_the_given_split_is_kept_and_val_comes_from_its_training_part():
    table = patients([0.0] * 10 + [5.0] * 10)
    table.loc["p18", "group"] = table.loc["p1", "group"]  # a near-identical image in training and test
    given_parts = {name: {"test"} if name in ("p0", "p1", "p10") else {"train"} for name in table.index}
    split, left_out = split_given(table, given_parts, 0.2, 0)
    parts = pd.Series(split)
    assert set(parts.index[parts == "test"]) == {"p0", "p1", "p10"}
    assert left_out == ["p18"] and "p18" not in split
    assert (parts == "val").sum() == pytest.approx(3, abs=1)


def test_a_given_split_that_divides_a_patient_is_refused():
    table = patients([0.0] * 5)
    with pytest.raises(SplitError, match="patient p2: .*'test', 'train'"):
        split_given(table, {name: {"train", "test"} if name == "p2" else {"train"} for name in table.index}, 0.2, 0)


def test_a_class_without_a_case_is_refused_in_training_and_told_elsewhere():
    rows = [("train", 0), ("train", 1), ("val", 0), ("val", 1), ("test", 0)]
    index = pd.DataFrame(rows, columns=["split", "label"])
    assert len(check_classes(index)) == 1 and "test part has no abnormal" in check_classes(index)[0]
    with pytest.raises(SplitError, match="train 0 healthy, 1 abnormal"):
        check_classes(index.drop(0))


def test_the_patient_table_gathers_slices_labels_and_volume():
    index = pd.DataFrame({"patient_id": ["a", "b", "a"], "label": [0, 1, 1]})
    table = patient_table(index, {"a": 12.5}, {"a": 0, "b": 1})
    assert table.loc["a"].to_dict() == {"slices": 2, "healthy": True, "abnormal": True, "volume": 12.5, "group": 0}
    assert table.loc["b"].to_dict() == {"slices": 1, "healthy": False, "abnormal": True, "volume": 0.0, "group": 1}


def test_with_test_fraction_1_everything_is_test_even_one_patient():
    assert split_patients(patients([0.0, 3.0], groups=[0, 0]), 0.15, 1.0, 0) == {"p0": "test", "p1": "test"}
    assert set(split_patients(patients([5.0]), 0.15, 1.0, 0).values()) == {"test"}


def test_where_everything_is_test_no_class_is_needed_for_training():
    index = pd.DataFrame({"split": "test", "label": [1, 1]})
    warnings = check_classes(index)
    assert len(warnings) == 1 and "test part has no healthy slice" in warnings[0]

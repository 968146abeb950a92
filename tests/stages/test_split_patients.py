import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.cohort.extracted import SelectionError
from flipside.cohort.selection import keep_by_organ, relative_height, slice_labels
from flipside.cohort.splits import SplitError, check_leakage
from flipside.cohort.windowing import fingerprint_window
from flipside.core.packed_masks import PackedMasks
from flipside.core.params import ParamsError
from flipside.core.store import INDEX_COLUMNS, SliceStore, apply_window
from stages import split_patients
from tests.cohort.extracted_fixture import write_extracted, write_params, write_tables


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(root: Path) -> tuple[SliceStore, np.ndarray, dict]:
    split_patients.main()
    return (SliceStore.open("data/filtered"), PackedMasks.open("data/filtered_truth/lesion.npy", 32)[:],
            json.loads((root / "data/filtered/manifest.json").read_text()))


def tables(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    scans = pd.read_csv(root / "data/extracted/scans.csv").fillna({"given_split": ""})
    return pd.read_csv(root / "data/extracted/index.csv"), scans


def test_the_store_holds_the_kept_slices_windowed_and_aligned(root):
    write_extracted(root, lesions=(1, 4, 7), anomalies=False)
    write_params(root, filter={"window": [0, 80]})
    store, lesion, manifest = run(root)
    extracted = np.load("data/extracted/images.npy")
    truth = PackedMasks.open("data/extracted/lesion.npy", 32)
    names = list(tables(root)[0]["slice_id"])
    assert len(store.index) == 30 and lesion.shape == store.images.shape
    for position, name in enumerate(store.index["slice_id"]):
        source = names.index(name)
        expected = np.clip(extracted[source] / 40 - 1, -1, 1)
        np.testing.assert_allclose(store.images[position], expected, atol=1e-3)
        np.testing.assert_array_equal(lesion[position], truth[source])
        assert store.index["label"].iloc[position] == int(truth[source].any())
    assert manifest["dropped_for_organ_area"] == 10
    assert sum(part["slices"] for part in manifest["counts"].values()) == 30
    assert sum(part["abnormal"] for part in manifest["counts"].values()) == 9


def test_no_lesion_size_or_class_label_reaches_the_store(root):
    write_extracted(root, lesions=(1, 4, 7), anomalies=False)
    write_params(root)
    assert list(run(root)[0].index.columns) == INDEX_COLUMNS


def test_the_organ_area_must_exceed_the_minimum_strictly():
    index = pd.DataFrame({"organ_px": [39, 40, 41, -1]})
    assert keep_by_organ(index, 40).tolist() == [False, False, True, True]


def test_no_slice_with_enough_organ_is_refused_with_counts(root):
    write_extracted(root)
    write_params(root, filter={"min_organ_px": 200})
    with pytest.raises(SelectionError, match="40 slices looked at, largest organ area 200"):
        run(root)


def test_a_class_label_goes_before_the_lesion_area():
    index = pd.DataFrame({"lesion_px": [0, 10, 11, 50, 0], "class_label": [-1, -1, -1, 0, 1]})
    assert slice_labels(index, 10).tolist() == [0, 0, 1, 0, 1]


def test_the_window_comes_from_training_scans_alone(root):
    write_extracted(root)
    write_params(root)
    store, _, first = run(root)
    samples = dict(np.load("data/extracted/foreground.npz"))
    scans = store.index.groupby("split")["scan_id"].first()

    for split in ("test", "val"):
        np.savez("data/extracted/foreground.npz", **(samples | {scans[split]: samples[scans[split]] + 500}))
        assert run(root)[2]["window"] == first["window"]
    np.savez("data/extracted/foreground.npz", **(samples | {scans["train"]: samples[scans["train"]] + 500}))
    assert run(root)[2]["window"] != first["window"]


def test_the_fingerprint_is_the_percentiles_of_the_pooled_samples():
    samples = {"a": np.arange(0, 60, dtype=np.float32), "b": np.arange(60, 101, dtype=np.float32), "c": np.full(9, 1e6)}
    assert fingerprint_window(samples, ["a", "b"], (1, 99)) == pytest.approx((1, 99))
    with pytest.raises(SelectionError, match="no samples of scan d"):
        fingerprint_window(samples, ["a", "d"], (1, 99))
    with pytest.raises(SelectionError, match="window is empty"):
        fingerprint_window(samples, ["c"], (1, 99))


def test_the_window_maps_its_bounds_to_minus_one_and_one():
    values = np.array([-500, -100, 50, 200, 900], np.float32)
    np.testing.assert_array_equal(apply_window(values, (-100, 200)), np.array([-1, -1, 0, 1, 1], np.float16))


def test_relative_height_counts_kept_slices_of_each_scan():
    index = pd.DataFrame({"scan_id": ["a", "a", "a", "b"], "z": [10, 14, 12, 3], "patient_id": "p",
                          "slice_number": np.nan})
    assert relative_height(index).tolist() == [0, 1, 0.5, 0.5]


def test_relative_height_of_pictures_is_that_among_their_patients_numbered_ones():
    index = pd.DataFrame({"scan_id": list("abcdv"), "z": [0, 0, 0, 0, 7], "patient_id": ["p", "p", "p", "q", "p"],
                          "slice_number": [4, 8, 5, 9, np.nan]})
    assert relative_height(index).tolist() == [0, 1, 0.25, 0.5, 0.5]


def test_byte_identical_copies_stay_once_and_are_reported(root):
    write_extracted(root)
    write_params(root)
    index, scans = tables(root)
    index.loc[index["slice_id"].isin(["p00_z1", "p05_z2"]), "sha256"] = "same"
    write_tables(root, index, scans)
    store, _, manifest = run(root)
    assert "p00_z1" in set(store.index["slice_id"]) and "p05_z2" not in set(store.index["slice_id"])
    assert manifest["dropped"] == [{"slice_id": "p05_z2", "source_file": "p05.nii.gz",
                                    "reason": "byte-identical copy of another slice"}]
    parts = store.index.drop_duplicates("patient_id").set_index("patient_id")["split"]
    assert parts["p00"] == parts["p05"]  # the two share an image, so they may be one person


def test_byte_identical_images_with_different_labels_are_all_dropped(root):
    write_extracted(root, lesions=(1, 4, 7), anomalies=False)
    write_params(root)
    index, scans = tables(root)
    index.loc[index["slice_id"].isin(["p01_z1", "p05_z2"]), "sha256"] = "same"
    write_tables(root, index, scans)
    store, _, manifest = run(root)
    assert not {"p01_z1", "p05_z2"} & set(store.index["slice_id"])
    assert manifest["duplicates"]["identical"]["dropped_for_conflicting_labels"] == 2


def test_the_given_test_part_stays_and_its_copies_leave_training(root):
    write_extracted(root, lesions=(1, 4, 7), anomalies=False,
                    given={number: "test" if number in (0, 1) else "train" for number in range(10)})
    write_params(root, filter={"use_given_split": True})
    images = np.load("data/extracted/images.npy")
    images[4 * 9 + 2] = images[1] * 1.5 + 20  # patient 9 holds a brighter copy of patient 0's slice
    np.save("data/extracted/images.npy", images)
    store, _, manifest = run(root)
    parts = store.index.drop_duplicates("patient_id").set_index("patient_id")["split"]
    assert set(parts.index[parts == "test"]) == {"p00", "p01"}
    assert manifest["left_out_patients"] == ["p09"] and "p09" not in parts.index
    assert set(parts) == {"train", "val", "test"}


NO_LEAK = {"patients_in_two_splits": 0, "duplicate_groups_in_two_splits": 0, "identical_images_in_two_splits": 0}


def test_leakage_is_counted_and_refused(root):
    write_extracted(root)
    write_params(root, filter={"window": [-1000, 1000]})
    store, _, manifest = run(root)
    assert manifest["leakage"] == NO_LEAK
    index, images = store.index, np.array(store.images)
    test = np.flatnonzero(index["split"] == "test")
    with pytest.raises(SplitError, match="1 patients in two splits, expected none"):
        check_leakage(index.assign(split=index["split"].where(index.index != test[0], "train")), images, [])
    parts = index.drop_duplicates("split").set_index("split")["patient_id"]
    with pytest.raises(SplitError, match="1 duplicate groups in two splits"):
        check_leakage(index, images, [[parts["train"], parts["test"]]])
    train = index.loc[index["split"] == "train", "patient_id"].unique()
    assert check_leakage(index, images, [list(train[:2])]) == NO_LEAK

    images[test[:2]] = images[np.flatnonzero(index["split"] == "train")[0]]
    assert check_leakage(index, images, []) == NO_LEAK | {"identical_images_in_two_splits": 1}


def test_a_data_set_with_one_class_only_is_refused_with_counts(root):
    write_extracted(root, anomalies=False)
    write_params(root)
    with pytest.raises(SplitError, match="one class only .train 18 healthy, 0 abnormal"):
        run(root)


def test_nan_in_a_slice_is_refused_by_name(root):
    write_extracted(root)
    write_params(root)
    images = np.load("data/extracted/images.npy")
    images[6, 0, 0] = np.nan
    np.save("data/extracted/images.npy", images)
    with pytest.raises(SelectionError, match="p01_z2 holds NaN"):
        run(root)
    assert not Path("data/filtered").exists()


def test_a_window_the_wrong_way_round_is_refused(root):
    write_extracted(root)
    write_params(root, filter={"window": [200, -100]})
    with pytest.raises(ParamsError, match="window must be"):
        run(root)


def test_the_same_seed_gives_the_same_bytes(root):
    write_extracted(root)
    write_params(root)
    first = run(root)[0]
    assert run(root)[0].fingerprint == first.fingerprint

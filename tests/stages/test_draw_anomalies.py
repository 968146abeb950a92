import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.artifacts.clean import read_clean
from flipside.artifacts.truth import write_truth
from flipside.cohort.anomalies import AnomalyError
from flipside.cohort.offline_augmentation import OfflineAugmentationParams, augment, plan_copies
from flipside.core.files import file_digest
from flipside.core.packed_masks import PackedMasks
from flipside.core.store import SliceStore
from stages import draw_anomalies, split_patients
from tests.cohort.extracted_fixture import AUGMENTATION, write_extracted, write_params


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(root: Path) -> tuple[SliceStore, np.ndarray, dict]:
    draw_anomalies.main()
    return (SliceStore.open("data/slices"), PackedMasks.open("data/truth/lesion.npy", 32)[:],
            json.loads((root / "data/slices/manifest.json").read_text()))


def filtered(root: Path, lesions: tuple[int, ...] = (), anomalies: bool = True, **changes) -> SliceStore:
    write_extracted(root, lesions=lesions, anomalies=anomalies)
    write_params(root, filter={"window": [-40, 120]}, seed=1, **changes)
    split_patients.main()
    return SliceStore.open("data/filtered")


def test_labels_truth_and_changes_agree_and_healthy_slices_stay_as_they_were(root):
    before = filtered(root)
    store, truth, manifest = run(root)
    assert list(store.index["slice_id"]) == list(before.index["slice_id"])
    np.testing.assert_array_equal(store.index["label"], truth.any(axis=(1, 2)))
    change = store.images.astype(np.float32) - before.images.astype(np.float32)
    assert (change >= 0).all()
    assert not change[store.index["label"] == 0].any()
    lesion = truth == 1
    assert (change[lesion] > 0.4)[before.images[lesion] < 0.5].all()
    outside = change[~lesion]
    assert outside.max() <= 2 * 0.9 * 0.25 + 1e-2  # what the template adds below the mask's threshold
    np.testing.assert_array_equal(store.organ, before.organ)
    assert manifest["anomalies"]["outcomes"]["anomaly"] == store.index["label"].sum()
    assert set(manifest["leakage"]) == {f"{name}_in_two_splits" for name in ("patients", "duplicate_groups",
                                                                             "identical_images")}
    assert not any(manifest["leakage"].values())
    assert {split for split, label in zip(store.index["split"], store.index["label"], strict=True) if label} == {
        "train", "val", "test"}


def test_several_draws_of_a_slice_share_patient_and_split(root):
    before = filtered(root, anomalies=True)
    write_params(root, seed=1, anomalies={"draws_per_slice": 3})
    store, truth, _ = run(root)
    assert len(store.index) == 3 * len(before.index) == len(truth)
    assert store.index["slice_id"].iloc[:4].tolist() == [
        f"{before.index['slice_id'].iloc[0]}:d{draw}" for draw in range(3)] + [f"{before.index['slice_id'].iloc[1]}:d0"]
    assert (store.index.groupby("patient_id")["split"].nunique() == 1).all()
    assert store.index["draw"].iloc[:4].tolist() == [0, 1, 2, 0]
    source = store.index["source_slice_id"]
    assert source.eq(store.index["slice_id"].str.split(":").str[0]).all()
    assert source.map(before.index.set_index("slice_id")["split"]).eq(store.index["split"]).all()
    mixed = store.index.groupby(source)["label"].nunique()
    assert (mixed == 2).any()  # the draws are independent
    np.testing.assert_array_equal(store.index["label"], truth.any(axis=(1, 2)))


def test_the_clean_images_are_the_test_slices_before_their_anomalies(root):
    before = filtered(root)
    write_params(root, seed=1, anomalies={"draws_per_slice": 2})
    store = run(root)[0]
    tests = store.index.iloc[store.rows("test")]
    clean = read_clean("data/clean", tests["slice_id"])
    undrawn = before.index.reset_index().set_index("slice_id")["index"].loc[tests["source_slice_id"]]
    np.testing.assert_array_equal(clean, before.images[undrawn.to_numpy()])
    assert (clean[tests["label"] == 1] != store.images[tests.index[tests["label"] == 1]]).any(axis=(1, 2)).all()


def test_real_lesions_have_no_clean_images(root):
    filtered(root, lesions=(1, 4, 7), anomalies=False)
    store = run(root)[0]
    assert read_clean("data/clean", store.index["slice_id"].iloc[store.rows("test")]) is None


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(root):
    filtered(root)
    first, digest = run(root)[0].fingerprint, file_digest("data/truth/lesion.npy")
    assert run(root)[0].fingerprint == first and file_digest("data/truth/lesion.npy") == digest
    write_params(root, seed=2)
    assert run(root)[0].fingerprint != first


def test_a_data_set_with_lesions_passes_through_unchanged(root):
    before = filtered(root, lesions=(1, 4, 7), anomalies=False)
    store, truth, manifest = run(root)
    np.testing.assert_array_equal(store.images, before.images)
    np.testing.assert_array_equal(truth, PackedMasks.open("data/filtered_truth/lesion.npy", 32))
    pd.testing.assert_frame_equal(store.index, before.index)
    assert manifest["anomalies"]["drawn"] is False


def test_anomalies_on_top_of_real_lesions_are_refused(root):
    filtered(root, lesions=(1, 4, 7), anomalies=True)
    with pytest.raises(AnomalyError, match="9 of 30 slices are abnormal already.*datasets.toy.anomalies"):
        run(root)
    assert not Path("data/slices").exists()


def test_copies_balance_the_training_part_alone(root):
    before = filtered(root, lesions=(1, 4, 7), anomalies=False)
    write_params(root, seed=1, offline_augmentation={"enabled": True})
    store, truth, manifest = run(root)
    train = store.index[store.index["split"] == "train"]
    assert (train["label"] == 0).sum() == (train["label"] == 1).sum()
    copied = store.index[len(before.index):]
    assert len(copied) == manifest["training_copies"] > 0
    assert set(copied["split"]) == {"train"} and set(copied["label"]) == {1}
    assert copied["slice_id"].str.contains(r":a\d+$").all()
    for split in ("val", "test"):
        assert len(store.rows(split)) == len(before.rows(split))
    for position in copied.index:  # moved with their masks
        source = before.index.index[before.index["slice_id"] == store.index["source_slice_id"][position]][0]
        assert store.index["slice_id"][position].startswith(before.index["slice_id"][source] + ":a")
        assert (store.images[position] != before.images[source]).any()
        assert 3 <= truth[position].sum() <= 24


def test_copies_are_spread_evenly_over_the_rarer_class():
    index = pd.DataFrame({"split": ["train"] * 12 + ["val"], "label": [1] * 3 + [0] * 9 + [1]})
    assert sorted(plan_copies(index, 0).tolist()) == [0, 0, 1, 1, 2, 2]
    assert not len(plan_copies(index[index["label"] == 0], 0))


@pytest.mark.parametrize("kind", ["flip", "rotation", "translation"])
def test_a_copy_moves_image_organ_and_lesion_alike(kind):
    params = OfflineAugmentationParams(**(AUGMENTATION | {"transforms": [kind], "translation_fraction": 0.2}))
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 8:24] = 1
    image = (mask * 2.0 - 1).astype(np.float16)
    moved, organ, lesion = augment(image, mask, mask, params, 0, "slice:a1")
    np.testing.assert_array_equal(organ, lesion)
    assert (organ != mask).any() and organ.dtype == np.uint8 and moved.dtype == np.float16
    assert ((moved > 0) == organ).mean() > 0.98
    if kind == "flip":
        np.testing.assert_array_equal(organ, mask[:, ::-1])


def test_truth_of_another_run_is_refused(root):
    filtered(root)
    write_truth("data/filtered_truth", np.zeros((3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="filtered_truth.*doesn't fit the slices.*dvc repro"):
        run(root)

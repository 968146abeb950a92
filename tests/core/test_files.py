"""Artifacts are whole or absent; metrics files hold what DVC can compare; stores and models refuse what is broken."""

import json

import numpy as np
import pandas as pd
import pytest

from flipside.artifacts.explanations import ABNORMAL, Explanations, write_explanations
from flipside.core.files import atomic_file, atomic_folder, write_metrics
from flipside.core.packed_masks import write_packed
from flipside.core.store import INDEX_COLUMNS, SliceStore, StoreError, as_channels, write_store


def test_failed_folder_leaves_the_old_one_and_no_partial(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(OSError), atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("half")
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/a").read_text() == "old"


def test_failed_file_leaves_the_old_one(tmp_path):
    with atomic_file(tmp_path / "a.json") as file:
        file.write_text("old")
    with pytest.raises(OSError), atomic_file(tmp_path / "a.json") as file:
        file.write_text("half")
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.parametrize("metrics", [
    {"coin": {"iou": float("nan")}}, {"coin": {"iou": float("inf")}}, {"coin": {"i.ou": 1.0}}, {"coin": {"IoU": 1.0}},
    {"coin": {"iou": None}}, {"coin": {"iou": True}}, {"coin": {"iou": [1.0]}},
])
def test_metrics_that_dvc_cannot_compare_are_refused(tmp_path, metrics):
    with pytest.raises(ValueError, match="metric"):
        write_metrics(tmp_path / "metrics.json", metrics)
    assert not (tmp_path / "metrics.json").exists()


def test_metrics_are_written(tmp_path):
    write_metrics(tmp_path / "metrics.json", {"coin": {"iou_val": 0.5, "n_cases": 3}})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"coin": {"iou_val": 0.5, "n_cases": 3}}


def index(count):
    values = {column: [0] * count for column in INDEX_COLUMNS}
    values |= {"slice_id": [f"s{i}" for i in range(count)], "label": [i % 2 for i in range(count)],
               "split": ["train", "val", "test"] * (count // 3)}
    return pd.DataFrame(values)


def test_store_round_trip_and_rows(tmp_path):
    images = np.linspace(-1, 1, 6 * 4 * 4).reshape(6, 4, 4)
    write_store(tmp_path / "slices", images, np.ones((6, 4, 4)), index(6))
    store = SliceStore.open(tmp_path / "slices")
    assert store.images.dtype == np.float16 and np.allclose(store.images, images, atol=1e-3)
    assert store.rows("val").tolist() == [1, 4]
    assert store.rows(("val", "test"), label=1).tolist() == [1, 5]
    assert store.channels == 1 and as_channels(store.images).shape == (6, 1, 4, 4)


def test_store_of_several_channels(tmp_path):
    images = np.linspace(-1, 1, 6 * 3 * 4 * 5).reshape(6, 3, 4, 5)
    write_store(tmp_path / "slices", images, np.ones((6, 4, 5)), index(6))
    store = SliceStore.open(tmp_path / "slices")
    assert (store.channels, store.sides) == (3, (4, 5)) and as_channels(store.images) is store.images
    write_packed(tmp_path / "slices/organ.npy", np.ones((6, 5, 5)))
    with pytest.raises(StoreError, match=r"images \(6, 3, 4, 5\), organ \(6, 5, 5\), index 6 rows don't agree"):
        SliceStore.open(tmp_path / "slices")


@pytest.mark.parametrize(("images", "message"), [
    (np.full((3, 4, 4), 1.5), r"\[-1,1\]"),
    (np.full((3, 4, 4), np.nan), r"\[-1,1\]"),
    (np.zeros((2, 4, 4)), "don't agree"),
    (np.zeros((3, 2, 4, 5)), "don't agree"),
])
def test_bad_stores_are_not_written(tmp_path, images, message):
    with pytest.raises(StoreError, match=message):
        write_store(tmp_path / "slices", images, np.ones((3, 4, 4)), index(3))
    assert not (tmp_path / "slices").exists()


def test_incomplete_stores_are_not_opened(tmp_path):
    with pytest.raises(StoreError, match="run the preparation"):
        SliceStore.open(tmp_path)
    write_store(tmp_path / "slices", np.zeros((3, 4, 4)), np.ones((3, 4, 4)), index(3))
    index(3).drop(columns="split").to_csv(tmp_path / "slices/index.csv", index=False)
    with pytest.raises(StoreError, match="split"):
        SliceStore.open(tmp_path / "slices")


def explained(count):
    return pd.DataFrame({"slice_id": [f"s{i}" for i in range(count)], "f_x": 0.5, "f_x_cf": np.nan, "steps": np.nan})


def test_explanations_round_trip(tmp_path):
    maps = np.random.default_rng(0).random((2, 4, 4))
    write_explanations(tmp_path / "rise", maps, None, explained(2), {"seconds": 1.0})
    read = Explanations.open(tmp_path / "rise")
    assert read.counterfactual is None and np.allclose(read.attribution, maps, atol=1e-3)
    assert read.index["slice_id"].tolist() == ["s0", "s1"] and read.timing == {"seconds": 1.0}


def test_images_made_abnormal_are_kept_apart_from_the_counterfactuals(tmp_path):
    maps, counterfactual, abnormal = np.zeros((2, 4, 4)), np.full((2, 4, 4), -0.5), np.full((2, 4, 4), 0.5)
    write_explanations(tmp_path / "singla", maps, counterfactual, explained(2).assign(f_x_ab=[0.9, 0.8]), {},
                       {ABNORMAL: abnormal})
    read = Explanations.open(tmp_path / "singla")
    assert (read.counterfactual == -0.5).all() and (read.abnormal == 0.5).all()
    assert read.index["f_x_ab"].tolist() == [0.9, 0.8]
    with pytest.raises(ValueError, match="abnormal_counterfactual of slice s0"):
        write_explanations(tmp_path / "singla", maps, counterfactual, explained(2), {}, {ABNORMAL: abnormal + 1})


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_explanations_out_of_range_name_the_slice(tmp_path, bad):
    maps = np.zeros((2, 4, 4))
    maps[1, 2, 2] = bad
    with pytest.raises(ValueError, match="slice s1"):
        write_explanations(tmp_path / "rise", maps, None, explained(2), {})
    assert not (tmp_path / "rise").exists()

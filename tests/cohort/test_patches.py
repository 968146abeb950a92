"""Patches for a strongly supervised classifier: what they show, whose splits they keep, and when there are none."""

import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from flipside.artifacts.truth import write_truth
from flipside.cohort.patches import PatchError, choose_patches
from flipside.core.files import read_json
from flipside.core.store import INDEX_COLUMNS, SliceStore, write_store
from flipside.scans.pixels import count_in_squares
from stages import cut_patches

SIZE, SIDE = 32, 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight slices of all splits; every other one has a lesion, whose pixels alone are bright."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])
    labels = np.arange(8) % 2
    index = pd.DataFrame({column: [0] * 8 for column in INDEX_COLUMNS}).assign(
        slice_id=[f"s{n}" for n in range(8)], patient_id=[f"p{n // 2}" for n in range(8)], label=labels,
        split=["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    lesion = np.zeros((8, SIZE, SIZE), np.uint8)
    lesion[1::2, 10:14, 20:23] = 1
    organ = np.zeros_like(lesion)
    organ[:, 4:28, 4:28] = 1
    write_store("data/slices", np.where(lesion, 0.9, -0.5).astype(np.float16), organ, index)
    write_truth("data/truth", lesion)
    params = {"seed": 3, "mass_patches": {"side_fraction": SIDE / SIZE, "per_slice": 10}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def test_sums_of_windows_are_those_of_each_window():
    mask = np.random.default_rng(0).random((9, 11)) > 0.6
    sums = count_in_squares(mask, 4)
    assert sums.shape == (6, 8)
    for row, column in np.ndindex(sums.shape):
        assert sums[row, column] == mask[row : row + 4, column : column + 4].sum()


def test_patches_show_the_lesion_or_none_of_it():
    lesion, organ = np.zeros((2, SIZE, SIZE), np.uint8)
    lesion[10:14, 20:23] = 1
    organ[4:28, 4:28] = 1
    corners, kinds = choose_patches(lesion, organ, SIDE, 200, np.random.default_rng(0))
    shown = np.array([lesion[top : top + SIDE, left : left + SIDE].sum() for top, left in corners])
    assert kinds.sum() == 100 and len(kinds) == 200
    assert (shown[kinds] >= lesion.sum() / 2).all() and (shown[~kinds] == 0).all()
    centres = corners[~kinds] + SIDE // 2
    assert organ[tuple(centres.T)].all()
    assert len(np.unique(corners[kinds], axis=0)) > 10  # not one and the same patch
    assert corners.min() >= 0 and corners.max() <= SIZE - SIDE


def test_a_lesion_larger_than_a_patch_and_one_that_leaves_no_background():
    lesion = np.ones((16, 16), np.uint8)
    corners, kinds = choose_patches(lesion, lesion, SIDE, 6, np.random.default_rng(0))
    assert len(corners) == 3 and kinds.all()


def test_a_slice_without_lesion_or_organ_gives_background_from_anywhere():
    nothing = np.zeros((SIZE, SIZE), np.uint8)
    corners, kinds = choose_patches(nothing, nothing, SIDE, 50, np.random.default_rng(0))
    assert len(corners) == 50 and not kinds.any() and np.ptp(corners) > 15


def test_the_store_of_patches_keeps_splits_and_leaves_the_test_split_out(folder, capsys):
    cut_patches.main()
    patches = SliceStore.open("data/patches")
    assert patches.images.shape == (6 * 10, SIDE, SIDE)
    assert set(patches.index["split"]) == {"train", "val"}
    bright = (np.asarray(patches.images, np.float32) > 0.5).any(axis=(1, 2))
    np.testing.assert_array_equal(bright, patches.index["label"] == 1)
    source = patches.index["slice_id"].str.split(":").str[0]
    assert source.value_counts().to_dict() == {f"s{n}": 10 for n in range(6)}
    assert patches.index["label"].sum() == 3 * 5
    assert read_json("data/patches/manifest.json")["counts"]["val"] == {"patches": 20, "on_lesion": 5}
    assert "STRONG SUPERVISION" in capsys.readouterr().out
    first = np.array(patches.images)
    cut_patches.main()
    np.testing.assert_array_equal(SliceStore.open("data/patches").images, first)


def test_without_lesion_masks_it_says_what_is_missing(folder):
    write_truth("data/truth", np.zeros((8, SIZE, SIZE), np.uint8))
    with pytest.raises(PatchError, match="20 patches of 8 pixels fit in the train split, 0 of them on a lesion"):
        cut_patches.main()

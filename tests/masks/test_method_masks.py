"""Masks that are stored and masks that are made again: the same by rows and whole, of the slices that they say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from flipside.artifacts.explanations import Explanations
from flipside.core.packed_masks import PackedMasks, write_packed
from flipside.core.store import SliceStore
from flipside.masks.method_masks import open_masks
from stages import extract_masks
from tests.stages.project_of_two import POLICIES, SECTIONS, SIZE, run, write_project


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens masks of a method whose slices stand backwards, with maps cut off at the organ and empty ones gated."""
    monkeypatch.chdir(tmp_path)
    write_project()
    organ = SliceStore.open("data/slices").organ[:]
    for row, mask in enumerate(organ):  # another one in each slice
        mask[:, 8 + row % (SIZE - 8):] = 0
    write_packed("data/slices/organ.npy", organ)
    Path("params.yaml").write_text(yaml.safe_dump(SECTIONS | {"masks": SECTIONS["masks"] | {"inside_organ": True}}))
    run(extract_masks, "--method", "blind")
    return lambda name: open_masks("blind", name, Explanations.open("data/explanations/blind"),
                                   SliceStore.open("data/slices"))


def test_one_mask_is_stored_and_any_row_of_the_others_made_as_it_is_among_all(opened):
    assert [file.name for file in Path("data/masks/blind").glob("*.npy")] == ["label_free.npy"]
    assert isinstance(opened("label_free"), PackedMasks)
    for name in (*POLICIES, *(f"{policy}_raw" for policy in POLICIES)):
        masks = opened(name)
        whole = masks[:]
        assert whole.shape == masks.shape and whole.dtype == np.uint8 and whole.any()
        np.testing.assert_array_equal(masks[5], whole[5])
        for rows in (np.array([30, 2, 7]), slice(3, 40, 9), np.arange(len(whole)) % 2 > 0):
            np.testing.assert_array_equal(masks[rows], whole[rows])


def test_what_is_made_again_is_what_was_stored(opened):
    stored = opened("label_free")[:]
    file = Path("data/masks/blind/thresholds.json")
    file.write_text(file.read_text().replace('"fixed":', '"unused":').replace('"label_free":', '"fixed":')
                    .replace('"unused":', '"label_free":'))
    np.testing.assert_array_equal(opened("fixed")[:], stored)


def test_masks_of_other_slices_and_of_an_older_form_are_refused(opened):
    np.save("data/masks/blind/label_free.npy", opened("label_free")[:])  # a byte for each pixel
    with pytest.raises(ValueError, match="label_free.npy holds uint8 .*older version, run `dvc repro"):
        opened("label_free")
    index = pd.read_csv("data/masks/blind/index.csv")
    index[::-1].to_csv("data/masks/blind/index.csv", index=False)
    with pytest.raises(ValueError, match="index.csv are not those of data/explanations/blind.*extract_masks@blind"):
        opened("val")
    Path("data/masks/blind/parameters.json").unlink()
    with pytest.raises(FileNotFoundError, match="blind/parameters.json not found: run `dvc repro extract_masks@blind"):
        opened("val")

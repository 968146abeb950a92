"""Masks with a bit for each pixel: what is written comes back, row by row, and nothing else is taken for masks."""

import numpy as np
import pytest

from flipside.core.packed_masks import PackedMasks, pack, write_packed


@pytest.mark.parametrize("width", [1, 7, 8, 13, 64])
def test_every_width_comes_back_whole_and_by_rows(tmp_path, width):
    masks = np.random.default_rng(width).integers(0, 2, (9, 5, width)).astype(np.uint8)
    write_packed(tmp_path / "masks.npy", masks)
    found = PackedMasks.open(tmp_path / "masks.npy", width)
    assert found.shape == masks.shape and len(found) == 9 and found[4].dtype == np.uint8
    np.testing.assert_array_equal(found, masks)
    for rows in (3, np.int64(8), -1, slice(2, 7), np.array([6, 0, 6]), masks.any(axis=(1, 2))):
        np.testing.assert_array_equal(found[rows], masks[rows])
    with pytest.raises(TypeError, match="by rows alone"):
        found[:, 2:4]
    np.testing.assert_array_equal(np.array([mask.sum() for mask in found]), masks.sum(axis=(1, 2)))


def test_a_mask_takes_an_eighth_of_a_byte_for_a_pixel_and_rows_are_read_without_the_file(tmp_path):
    write_packed(tmp_path / "masks.npy", np.ones((50, 64, 64), bool))
    assert (tmp_path / "masks.npy").stat().st_size == 128 + 50 * 64 * 64 // 8  # the header of a .npy file
    assert isinstance(PackedMasks.open(tmp_path / "masks.npy", 64).packed, np.memmap)


def test_anything_but_0_is_marked_and_what_the_width_does_not_fill_is_0():
    assert pack(np.array([[0.0, -0.5, 3, 1e-9, 0]])).tolist() == [[0b01110000]]


def test_no_row_is_a_file_as_well(tmp_path):
    write_packed(tmp_path / "masks.npy", np.zeros((0, 4, 9)))
    assert PackedMasks.open(tmp_path / "masks.npy", 9)[:].shape == (0, 4, 9)


@pytest.mark.parametrize("spoilt", ["half", "bytes", "width", "type"])
def test_what_is_half_written_or_in_another_form_is_refused(tmp_path, spoilt):
    file, masks = tmp_path / "masks.npy", np.ones((6, 8, 24), np.uint8)
    write_packed(file, masks)
    if spoilt == "half":
        file.write_bytes(file.read_bytes()[:200])
    elif spoilt != "width":
        np.save(file, masks if spoilt == "bytes" else np.ones((6, 8, 3), np.uint16))
    message = "greater than file size" if spoilt == "half" else "masks.npy holds .*dvc repro"
    with pytest.raises(ValueError, match=message):
        PackedMasks.open(file, 25 if spoilt == "width" else 24)

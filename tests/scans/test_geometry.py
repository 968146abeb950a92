"""Grids can be turned and turned back without changing a voxel."""

import itertools
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flipside.scans.geometry import (
    Geometry,
    GeometryError,
    from_canonical,
    from_slices,
    grids_agree,
    place_slices,
    slices_shape,
    to_canonical,
    to_slices,
)
from flipside.scans.pixels import resize_nearest

CODES = ["".join(code) for axes in itertools.permutations(["RL", "AP", "SI"]) for code in itertools.product(*axes)]


def affine_of(code: str, shape: tuple, spacing: tuple, angles: tuple, origin: tuple) -> np.ndarray:
    """Affine of a volume stored as `code`, with anisotropic spacing, turned by Euler angles in degrees."""
    turn = nib.orientations.axcodes2ornt(code)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = origin
    canonical_shape = tuple(shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), turn)
    return affine @ nib.orientations.inv_ornt_aff(back, canonical_shape)


grids = st.builds(
    lambda code, shape, spacing, angles, origin: Geometry.of_volume(
        shape, affine_of(code, shape, spacing, angles, origin)),
    st.sampled_from(CODES),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.floats(0.3, 7.5)] * 3),
    st.tuples(*[st.floats(-80, 80)] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
)


def numbered(shape: tuple) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)


@given(grids)
@settings(max_examples=120, deadline=None)
def test_every_grid_comes_back_voxel_for_voxel(geometry):
    volume = numbered(geometry.shape)
    again = Geometry.from_json(geometry.to_json())
    np.testing.assert_array_equal(again.affine, geometry.affine)
    assert (again.shape, again.orientation) == (geometry.shape, geometry.orientation)
    np.testing.assert_array_equal(from_canonical(to_canonical(volume, again), again), volume)
    np.testing.assert_array_equal(from_slices(to_slices(volume, again), again), volume)
    assert to_slices(volume, again).shape == slices_shape(again)


@given(grids)
@settings(max_examples=60, deadline=None)
def test_voxels_keep_their_place_in_the_patient(geometry):
    # nibabel's own canonical image is the independent reference.
    image = nib.Nifti1Image(numbered(geometry.shape), geometry.affine)
    canonical = nib.as_closest_canonical(image)
    np.testing.assert_array_equal(to_canonical(numbered(geometry.shape), geometry), np.asanyarray(canonical.dataobj))
    np.testing.assert_allclose(geometry.canonical_affine, canonical.affine, atol=1e-9)
    assert geometry.canonical_shape == canonical.shape


@given(grids, st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_enlarged_slices_come_back_exactly_on_the_original_grid(geometry, factor):
    volume = numbered(geometry.shape)
    slices = to_slices(volume, geometry)
    count, rows, columns = slices.shape
    stored = resize_nearest(slices, rows * factor, columns * factor)
    np.testing.assert_array_equal(place_slices(stored, np.arange(count), geometry), volume)


@given(grids)
@settings(max_examples=30, deadline=None)
def test_a_grid_agrees_with_itself_however_stored_and_not_with_a_shifted_one(geometry):
    code = CODES[geometry.shape[0] * 7 % len(CODES)]
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(geometry.orientation),
                                           nib.orientations.axcodes2ornt(code))
    stored = nib.Nifti1Image(numbered(geometry.shape), geometry.affine).as_reoriented(turn)
    assert grids_agree(geometry, Geometry.of_volume(stored.shape, stored.affine))
    shifted = geometry.affine.copy()
    shifted[0, 3] += 0.5 * nib.affines.voxel_sizes(geometry.affine).min()
    assert not grids_agree(geometry, Geometry.of_volume(geometry.shape, shifted))
    longer = Geometry.of_volume((*geometry.shape[:2], geometry.shape[2] + 1), geometry.affine)
    assert not grids_agree(geometry, longer)


def test_slices_are_shown_radiologically():
    # RAS: x grows to the right, y to the front, z to the head.
    geometry = Geometry.of_volume((3, 4, 2), np.diag([2.0, 3.0, 5.0, 1.0]))
    volume = np.zeros((3, 4, 2), np.uint8)
    volume[2, 3, 1] = 1  # rightmost, foremost, uppermost
    slices = to_slices(volume, geometry)
    assert slices.shape == (2, 4, 3) and slices[1, 0, 0] == 1 and slices.sum() == 1
    np.testing.assert_array_equal(slices[1], volume[::-1, ::-1, 1].T)
    assert geometry.slice_spacing_mm == (3.0, 2.0, 5.0)


def test_resize_takes_the_pixel_under_each_centre():
    image = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(resize_nearest(image, 3, 4), image)
    np.testing.assert_array_equal(resize_nearest(image, 1, 2), [[5, 7]])
    np.testing.assert_array_equal(resize_nearest(image, 6, 8), image.repeat(2, 0).repeat(2, 1))


def test_an_image_goes_back_to_its_own_size():
    geometry = Geometry.from_json(Geometry.of_image(20, 10).to_json())
    mask = np.zeros((1, 5, 5), np.uint8)
    mask[0, 0, 4] = 1
    placed = place_slices(mask, np.array([0]), geometry)
    expected = np.zeros((20, 10), np.uint8)
    expected[:4, 8:] = 1
    np.testing.assert_array_equal(placed, expected)


def test_slices_that_were_not_kept_stay_empty():
    geometry = Geometry.of_volume((4, 4, 3), np.diag([-1.0, -1.0, 2.0, 1.0]))
    placed = place_slices(np.ones((1, 2, 2), np.float16), np.array([1]), geometry)
    assert placed.dtype == np.float16 and placed[:, :, 1].all() and not placed[:, :, [0, 2]].any()


def test_wrong_arrays_and_numbers_are_refused():
    geometry = Geometry.of_volume((4, 4, 3), np.eye(4))
    with pytest.raises(GeometryError, match=r"\(4, 4, 2\) doesn't lie on the grid \(4, 4, 3\)"):
        to_slices(np.zeros((4, 4, 2)), geometry)
    with pytest.raises(GeometryError, match=r"\[3\] can't be placed in a scan of 3"):
        place_slices(np.zeros((1, 2, 2)), np.array([3]), geometry)
    with pytest.raises(GeometryError, match=r"\[1, 1\]"):
        place_slices(np.zeros((2, 2, 2)), np.array([1, 1]), geometry)
    with pytest.raises(GeometryError, match="not invertible"):
        Geometry.of_volume((4, 4, 3), np.zeros((4, 4)))


@pytest.mark.parametrize(("module", "unwanted"), [
    ("flipside.scans.pixels", ("torch", "nibabel")), ("flipside.scans.geometry", ("torch",)),
    ("flipside.masks.placing", ("torch",)),
])
def test_what_only_resizes_or_places_waits_for_no_large_library(module, unwanted):
    code = f"import sys, {module}; print(sorted(set(sys.modules) & set({unwanted!r})))"
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True,
                            check=True)
    assert result.stdout.strip() == "[]"

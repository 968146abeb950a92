"""Grids can be turned and turned back without changing a voxel."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flipside.scans.geometry import (
    AXES,
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
    lambda code, shape, spacing, angles, origin, plane: replace(Geometry.of_volume(
        shape, affine_of(code, shape, spacing, angles, origin)), plane=plane),
    st.sampled_from(CODES),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.floats(0.3, 7.5)] * 3),
    st.tuples(*[st.floats(-80, 80)] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.sampled_from(list(AXES)),
)


def numbered(shape: tuple) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)


@given(grids)
@settings(max_examples=120, deadline=None)
def test_every_grid_comes_back_voxel_for_voxel(geometry):
    volume = numbered(geometry.shape)
    again = Geometry.from_json(geometry.to_json())
    np.testing.assert_array_equal(again.affine, geometry.affine)
    assert (again.shape, again.orientation, again.plane) == (geometry.shape, geometry.orientation, geometry.plane)
    np.testing.assert_array_equal(from_canonical(to_canonical(volume, again), again), volume)
    np.testing.assert_array_equal(from_slices(to_slices(volume, again), again), volume)
    assert to_slices(volume, again).shape == slices_shape(again)


@given(grids)
@settings(max_examples=60, deadline=None)
def test_voxels_keep_their_place_in_the_patient(geometry):
    # nibabel's own canonical image is the independent reference; halfway between two directions it has no rule.
    assume(all(np.abs(np.diff(np.sort(np.abs(axis))[1:])) > 0.01 for axis in geometry.affine[:3, :3].T
               / nib.affines.voxel_sizes(geometry.affine)[:, None]))
    image = nib.Nifti1Image(numbered(geometry.shape), geometry.affine)
    canonical = nib.as_closest_canonical(image)
    np.testing.assert_array_equal(to_canonical(numbered(geometry.shape), geometry), np.asanyarray(canonical.dataobj))
    np.testing.assert_allclose(geometry.canonical_affine, canonical.affine, atol=1e-9)
    assert geometry.canonical_shape == canonical.shape


@given(grids, st.floats(1, 5), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_enlarged_and_padded_slices_come_back_exactly_on_the_original_grid(geometry, factor, more_rows, more_columns):
    """Any plane, orientation, spacing and shape of the target; only the target must not be coarser than the scan."""
    volume = numbered(geometry.shape)
    slices = to_slices(volume, geometry)
    (count, rows, columns), (row_mm, column_mm, _) = slices.shape, geometry.slice_spacing_mm
    pixel = min(row_mm, column_mm) / factor
    shape = math.ceil(rows * row_mm / pixel) + more_rows, math.ceil(columns * column_mm / pixel) + more_columns
    box = geometry.content_box(shape)
    height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
    assert height == shape[0] or width == shape[1]  # as large as fits
    assert abs(rows * row_mm / height - columns * column_mm / width) <= max(
        rows * row_mm / height / width, columns * column_mm / width / height)  # square pixels, to half a pixel
    stored = np.full((count, *shape), -7, volume.dtype)
    stored[:, box[0], box[1]] = resize_nearest(slices, height, width)
    np.testing.assert_array_equal(place_slices(stored, np.arange(count), geometry), volume)


@pytest.mark.parametrize(("rows", "columns", "spacing", "shape", "box"), [
    (512, 512, (0.743, 0.743), (64, 64), (slice(0, 64), slice(0, 64))),
    (240, 240, (1.0, 1.0), (96, 64), (slice(16, 80), slice(0, 64))),
    (512, 512, (0.7430001, 0.743), (256, 256), (slice(0, 256), slice(0, 256))),  # rounding is no other shape
    (12, 64, (5.0, 1.0), (64, 64), (slice(2, 62), slice(0, 64))),
    (2000, 4, (0.1, 0.1), (64, 64), (slice(0, 64), slice(31, 32))),  # at least one pixel
])
def test_the_box_that_shows_the_scan(rows, columns, spacing, shape, box):
    assert Geometry(
        shape=(rows, columns), affine=None, orientation="", pixel_mm=spacing).content_box(shape) == box


@given(grids)
@settings(max_examples=60, deadline=None)
def test_each_plane_shows_what_it_should(geometry):
    """Against the canonical volume by index: rows run down from the head (axial: the front), columns from the right
    (sagittal: the front)."""
    canonical = to_canonical(numbered(geometry.shape), geometry)
    x, y, z = (length - 1 for length in canonical.shape)
    for plane, corner, lower, further in (
            ("axial", canonical[x, y, 0], canonical[x, 0, 0], canonical[0, y, 0]),
            ("coronal", canonical[x, 0, z], canonical[x, 0, 0], canonical[0, 0, z]),
            ("sagittal", canonical[0, y, z], canonical[0, y, 0], canonical[0, 0, z])):
        slices = to_slices(numbered(geometry.shape), replace(geometry, plane=plane))
        assert (slices[0, 0, 0], slices[0, -1, 0], slices[0, 0, -1]) == (corner, lower, further)


@given(st.sampled_from(CODES), st.permutations([0.8, 1.1, 5.0]))
@settings(max_examples=100, deadline=None)
def test_native_slices_lie_across_the_coarsest_axis(code, sides):
    affine = affine_of(code, (4, 5, 6), (1, 1, 1), (12, -7, 20), (0, 0, 0))
    affine[:3, :3] *= sides
    geometry = Geometry.of_volume((4, 5, 6), affine)
    native = replace(geometry, plane=geometry.native_plane)
    assert native.slice_spacing_mm[2] == pytest.approx(5.0)
    assert sorted(native.slice_spacing_mm[:2]) == pytest.approx([0.8, 1.1])
    isotropic = affine_of(code, (4, 5, 6), (1.0, 1.004, 0.998), (0, 0, 0), (0, 0, 0))
    assert Geometry.of_volume((4, 5, 6), isotropic).native_plane == "axial"


@given(st.sampled_from(CODES), st.sampled_from(["xy", "xz", "yz"]), st.sampled_from([-135, -45, 45, 135]),
       st.integers(0, 2**31), st.sampled_from(list(AXES)))
@settings(max_examples=200, deadline=None)
def test_at_45_degrees_rounding_decides_nothing(code, axes, degrees, seed, plane):
    """Image and labels whose affines differ in their last digits become the same slices, and come back."""
    turn = np.zeros(3)
    turn[3 - "xyz".index(axes[0]) - "xyz".index(axes[1])] = degrees
    affine = affine_of(code, (4, 4, 4), (1.0, 1.0, 3.0), tuple(turn), (5, -8, 13))
    noise = np.random.default_rng(seed).normal(size=(3, 3)) * 1e-7
    rounded = affine.astype(np.float32).astype(float)
    rounded[:3, :3] += noise
    first, second = Geometry.of_volume((4, 4, 4), affine), Geometry.of_volume((4, 4, 4), rounded)
    assert first.orientation == second.orientation and grids_agree(first, second)
    volume, cut = numbered((4, 4, 4)), replace(first, plane=plane)
    np.testing.assert_array_equal(to_slices(volume, cut), to_slices(volume, second.turned_like(cut)))
    np.testing.assert_array_equal(from_slices(to_slices(volume, cut), cut), volume)


@given(st.sampled_from(CODES), st.floats(-30, 30), st.sampled_from(list(AXES)))
@settings(max_examples=60, deadline=None)
def test_a_tilted_gantry_shears_the_grid_and_nothing_else(code, tilt, plane):
    """Under gantry tilt the slices are shifted against each other along y: the axes are no longer at right angles."""
    straight = affine_of(code, (5, 6, 7), (0.8, 0.8, 3.0), (0, 0, 0), (-20, 9, 4))
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.radians(tilt))
    geometry = replace(Geometry.of_volume((5, 6, 7), shear @ straight), plane=plane)
    assert geometry.orientation == code
    volume = numbered((5, 6, 7))
    again = Geometry.from_json(geometry.to_json())
    np.testing.assert_array_equal(from_slices(to_slices(volume, again), again), volume)
    np.testing.assert_array_equal(again.affine, shear @ straight)


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
    mask[0, 0, [2, 4]] = 1
    placed = place_slices(mask, np.array([0]), geometry)
    expected = np.zeros((20, 10), np.uint8)  # twice as high as wide: columns 1 and 2 of 5 show it
    expected[:4, 5:] = 1
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

"""NIfTI headers that say two things: refused where both claim the same space, read where they don't."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from flipside.scans.readers import ReadError, read_nifti
from tests.scans.scans_fixture import write_nifti

SHAPE, SIDES = (5, 6, 7), (0.7, 0.8, 2.5)
# All 48 ways in which three axes can point: an order, and a direction for each.
AXES = ["".join(pair[way] for pair, way in zip(order, ways, strict=True))
        for order in itertools.permutations(("LR", "PA", "IS")) for ways in itertools.product((0, 1), repeat=3)]
ROTATION = np.array([[0.9, -0.1, 0], [0.1, 0.9, 0.1], [0, -0.1, 0.9]])
AFFINE = np.diag([*SIDES, 1.0])
AFFINE[:3, :3] = np.linalg.qr(ROTATION)[0] @ np.diag([-1, -1, -1]) @ AFFINE[:3, :3]


def pointing(axes):
    """An affine of SIDES whose axes point to `axes`."""
    affine = np.eye(4)
    for column, (letter, side) in enumerate(zip(axes, SIDES, strict=True)):
        row = next(row for row, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        affine[:3, column] = np.eye(3)[row] * (side if letter in "RAS" else -side)
    return affine


def write(path, sform, qform, codes, zooms=None):
    image = nib.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), None)
    image.set_qform(qform if qform is not None else np.eye(4), codes[1])
    image.set_sform(sform, codes[0])
    if zooms is not None:
        image.header["pixdim"][1:4] = zooms
    nib.save(image, path)


@pytest.mark.parametrize("axes", AXES)
def test_sform_and_qform_must_point_the_same_way(tmp_path, axes):
    """Each of the 48 orientations as sform, with its own and with each other one as qform."""
    assert len(set(AXES)) == 48
    for other in AXES:
        for codes in ((1, 1), (2, 1)):
            write(tmp_path / "a.nii", pointing(axes), pointing(other), codes)
            if other == axes:
                assert read_nifti(tmp_path / "a.nii").geometry.orientation == axes
                continue
            sentence = (rf"its sform \(code {codes[0]}\) and its qform \(code 1\) its axes point to {axes} "
                        f"and to {other}")
            with pytest.raises(ReadError, match=f"{sentence}.*set sform, qform and pixdim"):
                read_nifti(tmp_path / "a.nii")


def test_the_same_space_has_the_same_corners(tmp_path):
    for shift, right in ((0.0, True), (0.3, True), (0.4, False), (50.0, False)):  # half the smallest side is 0.35 mm
        moved = AFFINE.copy()
        moved[0, 3] += shift
        write(tmp_path / "a.nii", moved, AFFINE, (1, 1))
        if right:
            np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").geometry.affine, moved, atol=1e-5)
        else:
            with pytest.raises(ReadError, match=f"put its corners up to {shift:g} mm apart"):
                read_nifti(tmp_path / "a.nii")
        write(tmp_path / "b.nii", moved, AFFINE, (4, 1))  # registered to a template: another space
        read_nifti(tmp_path / "b.nii")


def test_a_registration_may_turn_a_head_over_the_border_between_two_names(tmp_path):
    """At 43 degrees an axis points to the right, at 47 to the front; a mirrored one is still refused."""
    def turned(degrees, mirror=1):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        affine = np.eye(4)
        affine[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ np.diag([mirror, 1, 1])
        return affine
    write(tmp_path / "a.nii", turned(47), turned(43), (4, 1))
    read_nifti(tmp_path / "a.nii")
    write(tmp_path / "b.nii", turned(47, -1), turned(43), (4, 1))
    with pytest.raises(ReadError, match="contradicts itself"):
        read_nifti(tmp_path / "b.nii")


@pytest.mark.parametrize(("code", "axis", "factor", "right"), [
    *((1, axis, 10, False) for axis in range(3)), (2, 0, 1.02, False), (2, 0, 1.005, True), (4, 0, 1.5, True)])
def test_voxels_have_one_size(tmp_path, code, axis, factor, right):
    zooms = np.array(SIDES)
    zooms[axis] *= factor
    write(tmp_path / "a.nii", AFFINE, None, (code, 0), zooms)
    if right:
        assert read_nifti(tmp_path / "a.nii").geometry.slice_spacing_mm == pytest.approx((0.8, 0.7, 2.5), rel=1e-5)
    else:
        with pytest.raises(ReadError, match="measure 0.7 x 0.8 x 2.5 mm by its sform, .* mm by its pixdim"):
            read_nifti(tmp_path / "a.nii")


def test_an_ending_in_capitals_is_packed_too(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = write_nifti(tmp_path / "a.nii.gz", array, np.diag([-1.0, -1.0, 3.0, 1.0])).rename(tmp_path / "A.NII.GZ")
    np.testing.assert_array_equal(read_nifti(path).slice(2), array[:, :, 2].T)

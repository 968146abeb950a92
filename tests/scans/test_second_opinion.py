"""Every grey DICOM and NIfTI file of the real images is read as SimpleITK reads it, voxel for voxel, or a line here
says why not. Files that are refused stand, with their reasons, in test_odd_files.py."""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.misc import is_dicom

from flipside.scans.dicom import read_dicom_image, read_dicom_series
from flipside.scans.geometry import from_slices
from flipside.scans.readers import ReadError, Volume, read_nifti
from tests.scans.scans_fixture import DATA, needs_data

PADDED = "padding takes the darkest value that is none, which ITK leaves as it is"
DIFFERENT = {  # file: reason, largest difference of the pixels that differ for another reason
    "odd_dicom/693_J2KI.dcm": (PADDED, 0), "odd_inputs/padding_monochrome1/raw/img/11.dcm": (PADDED, 0),
    "odd_inputs/padding_monochrome1/raw/img/22.dcm": (PADDED, 0),
    "odd_dicom/JPGExtended.dcm": ("lossy JPEG: decoders round differently", 1),
}
NO_ITK = {"odd_inputs/gantry_tilt_volume/raw/s_les.nii.gz": "ITK takes no sheared grid"}
NAN = {"odd_nifti/resampled_anat_moved.nii": "ITK makes 0 of NaN; the extraction refuses it"}
pytestmark = [needs_data, pytest.mark.filterwarnings("ignore")]


def whole(volume: Volume) -> np.ndarray:
    return np.stack([volume.slice(z) for z in range(len(volume.stored))])  # (Z,R,C)


def affine_of(image: sitk.Image) -> np.ndarray:
    """(4,4) RAS; ITK counts towards left and back, as DICOM does."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1, 1, 1]) @ affine


def files(*endings: str) -> list[Path]:
    """Below the folder of real images, but not those of pictures, which hold thousands of others."""
    folders = ("odd_dicom", "odd_nifti", "odd_inputs", "ircad17", "brats_case", "totalsegmentator")
    return sorted(Path(where, name) for folder in folders for where, _, names in os.walk(DATA / folder)
                  for name in names if name.endswith(endings))


def test_dicom_images():
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    compared = 0
    for path in files(""):
        if not is_dicom(path) or path.parent.parent.name == "ircad17":
            continue
        try:
            volume, header = read_dicom_image(path)
        except ReadError:
            continue
        name, ours = path.relative_to(DATA).as_posix(), volume.slice(0)
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
        differs = np.abs(theirs - ours) > 1e-3
        compared += 1
        if name not in DIFFERENT:
            assert not differs.any(), name
            continue
        reason, largest = DIFFERENT[name]
        assert differs.any(), f"{name} needs no line"
        if reason == PADDED:
            padding = pydicom.dcmread(path).pixel_array == pydicom.dcmread(path).PixelPaddingValue
            np.testing.assert_array_equal(differs, padding)
            assert (ours[padding] == ours[~padding].min()).all() and header.padding
        else:
            assert np.abs(theirs - ours).max() <= largest
    assert compared >= 100


@pytest.mark.parametrize("folder", ["ircad17/dicom", "odd_dicom/dicomdirtests/98892001/CT5N",
                                    "odd_inputs/upper_case_dcm/raw/s", "odd_inputs/scout_alone/raw/ct"])
def test_dicom_series(folder):
    paths = sorted((DATA / folder).iterdir())
    volume, _ = read_dicom_series(paths)
    in_order = sorted(paths, key=lambda path: pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
    image = sitk.ReadImage([str(path) for path in in_order])
    np.testing.assert_allclose(affine_of(image), volume.geometry.affine, atol=1e-4)
    np.testing.assert_array_equal(from_slices(whole(volume), volume.geometry).transpose(2, 1, 0),
                                  sitk.GetArrayFromImage(image))


def test_nifti_volumes():
    compared = 0
    for path in files(".nii", ".nii.gz"):
        try:
            volume = read_nifti(path)
        except ReadError:
            continue
        name = path.relative_to(DATA).as_posix()
        if name in NO_ITK:
            with pytest.raises(RuntimeError, match="orthonormal"):
                sitk.ReadImage(str(path))
            continue
        image = sitk.ReadImage(str(path))
        np.testing.assert_allclose(affine_of(image), volume.geometry.affine, atol=1e-4, err_msg=name)
        ours = from_slices(whole(volume), volume.geometry).transpose(2, 1, 0)
        if name in NAN:
            assert np.isnan(ours).any()
            ours = np.nan_to_num(ours)
        np.testing.assert_array_equal(ours, sitk.GetArrayFromImage(image).astype(np.float32), err_msg=name)
        compared += 1
    assert compared >= 21

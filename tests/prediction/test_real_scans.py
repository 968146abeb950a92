"""New scans from real scanners: predicted by untrained models, so only grids, files and faults are looked at."""

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.prediction.conftest import NIFTI, write_run
from tests.prediction.test_predict import call, table_of
from tests.scans.scans_fixture import DATA, needs_data
from tests.scans.test_second_opinion import affine_of

pytestmark = [needs_data, pytest.mark.filterwarnings("ignore")]


def same_grid(ours, theirs):
    ours, theirs = sitk.ReadImage(str(ours)), sitk.ReadImage(str(theirs))
    assert ours.GetSize() == theirs.GetSize()
    np.testing.assert_allclose(affine_of(ours), affine_of(theirs), atol=1e-4)


def test_nifti_of_ct_and_mr(tmp_path):
    run = write_run(tmp_path / "run", batch_size=64)
    names = ("example_ct", "example_mr_sm")
    files = [next((DATA / "totalsegmentator").glob(f"{name}*")) for name in names]
    call(*files, "-o", tmp_path / "out", "--run", run, "--method", "coin")
    for file in files:
        folder = tmp_path / "out" / file.name.removesuffix(".gz").removesuffix(".nii")
        for kind in ("mask", "attribution", "counterfactual"):
            same_grid(folder / f"{kind}.nii.gz", file)


def test_four_modalities_of_a_brain(tmp_path):
    block = NIFTI | {"modality": "mr", "organ": "nonzero",
                     "image": [f"{{case}}/{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f")]}
    run = write_run(tmp_path / "run", block, "per_scan", ("t1n", "t1c", "t2w", "t2f"), batch_size=64)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/case").symlink_to(DATA / "brats_case")
    call(tmp_path / "new", "-o", tmp_path / "out", "--run", run, "--method", "intensity")
    table = table_of(tmp_path / "out")
    assert table.index.tolist() == ["case"] and table.loc["case", "slices"] < 155  # slices without brain are left out
    same_grid(tmp_path / "out/case/mask.nii.gz", DATA / "brats_case/t1n.nii.gz")


def test_a_series_without_a_frame_of_reference(tmp_path):
    run = write_run(tmp_path / "run", batch_size=64)
    study = tmp_path / "study"
    study.mkdir()
    files = sorted((DATA / "ircad17/dicom").iterdir(), key=lambda file: float(
        pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2]))[40:52]
    for file in files:
        (study / file.name).symlink_to(file)
    call(study, "-o", tmp_path / "out", "--run", run, "--method", "intensity", "--dicom", "--anonymise")
    table = table_of(tmp_path / "out")
    assert "has no FrameOfReferenceUID" in table["warnings"].iloc[0] and table["slices"].iloc[0] == 12
    folder = tmp_path / "out" / table.index[0]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask.nii.gz")))
    frames = highdicom.seg.segread(folder / "segmentation.dcm").get_pixels_by_source_instance(
        [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in files], combine_segments=True,
        ignore_spatial_locations=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(frames, mask)


def test_pictures_of_every_odd_kind_are_predicted_or_named(tmp_path):
    block = {"layout": "class_folders", "root": "x", "image": "{class}/{case}.png", "classes": {"a": 0, "b": 1}}
    run = write_run(tmp_path / "run", block, "per_scan")
    folder = DATA / "gmic/images"
    call(folder, "-o", tmp_path / "out", "--run", run, "--method", "coin")
    assert (table_of(tmp_path / "out")["status"] == "done").sum() == len(list(folder.iterdir()))

"""Real volumes in other planes and with several channels, to slices and back onto their own grids."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.cohort.windowing import choose_windows, measure_saturation
from flipside.masks.placing import write_segmentation
from flipside.scans.geometry import Geometry
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from tests.cohort.test_windowing import filters
from tests.masks.volumes_fixture import AS_IT_IS
from tests.scans.scans_fixture import CT, DATA, EXTRACT, NIFTI, needs_data, write_nifti

pytestmark = needs_data
CHANNELS = ("t1c", "t1n", "t2f", "t2w")
BRATS = NIFTI | {
    "modality": "mr", "image": [f"{{case}}/{name}.nii.gz" for name in CHANNELS], "organ": "nonzero",
    "lesion": {"files": ["{case}/segmentation_by_algorithm.nii.gz"], "values": [1, 2, 3]}}


def sliced(folder: Path, content: dict, size) -> Extracted:
    folder.mkdir(exist_ok=True)
    params = ExtractParams(**EXTRACT | {"foreground_samples": 5000})
    extract("real", DatasetParams.model_validate(content).root, params, size, folder)
    return Extracted.open(folder)


def put_back(file: Path, got: Extracted) -> nib.Nifti1Image:
    write_segmentation(file, got.lesion[:], got.index["z"].to_numpy(), Geometry.from_json(got.scans["geometry"][0]),
                       AS_IT_IS)
    return nib.load(file)


def test_four_mri_contrasts_of_a_case_become_channels_and_its_tumour_goes_back(tmp_path):
    got = sliced(tmp_path / "out", BRATS | {"root": str(DATA)}, 240)
    assert got.manifest["channels"] == list(CHANNELS) and got.images.shape[1:] == (4, 240, 240)
    truth = nib.load(DATA / "brats_case/segmentation_by_algorithm.nii.gz")
    written = put_back(tmp_path / "tumour.nii.gz", got)
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(truth.dataobj) > 0)
    np.testing.assert_allclose(written.affine, truth.affine, atol=1e-4)
    for channel, name in enumerate(CHANNELS):
        volume = np.asanyarray(nib.load(DATA / f"brats_case/{name}.nii.gz").dataobj)  # LPS
        z = got.index["z"][40]
        np.testing.assert_allclose(got.images[40, channel], volume[:, :, z].T, atol=1e-3)
    windows = choose_windows(filters(), got, got.index.assign(split="train"))
    found, warnings = measure_saturation(filters(), got, windows)
    assert windows.described == "per_scan" and found["black"] + found["white"] <= 0.0105 and not warnings


def test_a_channel_on_another_grid_is_refused_with_both_files(tmp_path):
    (tmp_path / "case").mkdir()
    for name in CHANNELS[:2]:
        image = nib.load(DATA / f"brats_case/{name}.nii.gz")
        part = np.asanyarray(image.dataobj)[::4, ::4, ::8]
        affine = image.affine @ np.diag([4.0, 4.0, 8.0, 1.0])
        affine[0, 3] += 5.0 * (name == CHANNELS[1])
        write_nifti(tmp_path / f"case/{name}.nii.gz", part.astype(np.float32), affine)
    block = BRATS | {"root": str(tmp_path), "image": BRATS["image"][:2], "lesion": None}
    with pytest.raises(ReadError, match=r"t1n.nii.gz: volume of shape .* doesn't lie on the grid of .*t1c.nii.gz"):
        sliced(tmp_path / "out", block, 32)
    (tmp_path / "case/t1n.nii.gz").unlink()
    with pytest.raises(ReadError, match="t1c.nii.gz: 0 volumes match case/t1n.nii.gz, expected one"):
        sliced(tmp_path / "out", block, 32)


@pytest.mark.parametrize(("code", "size"), [("AIL", 128), ("PSR", [112, 160]), ("RAS", [140, 101])])
def test_thick_sagittal_slices_stay_sagittal_and_go_back_voxel_for_voxel(tmp_path, code, size):
    """A real CT averaged to 12 mm from left to right, stored in three orientations; kidneys as what is put back."""
    scan, labels = (nib.load(DATA / f"totalsegmentator/{name}.nii.gz")
                    for name in ("example_ct", "example_seg_fast_force_split"))
    thick = np.asanyarray(scan.dataobj)[:120].reshape(30, 4, 101, 112).mean(axis=1).astype(np.int16)
    kidneys = np.isin(np.asanyarray(labels.dataobj)[:120], (2, 3)).reshape(30, 4, 101, 112).any(axis=1).astype(np.uint8)
    affine = scan.affine @ np.array([[4, 0, 0, 1.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(code))
    for name, array in (("ct", thick), ("kidneys", kidneys)):
        image = nib.Nifti1Image(array, affine).as_reoriented(turn)
        write_nifti(tmp_path / f"raw/case/{name}.nii.gz", np.asanyarray(image.dataobj), image.affine)
    got = sliced(tmp_path / "out", CT | {
        "layout": "nifti_cases", "root": str(tmp_path / "raw"), "image": "{case}/ct.nii.gz", "plane": "native",
        "lesion": {"files": ["{case}/kidneys.nii.gz"], "values": [1]}}, size)
    assert got.manifest["planes"] == {"sagittal": 1} and len(got.index) == 30
    row = got.index.iloc[0]
    assert (row.native_rows, row.native_cols) == (112, 101) and row.spacing_z_mm == pytest.approx(12, abs=0.01)
    assert row.spacing_row_mm == pytest.approx(row.spacing_col_mm, rel=0.01)
    assert got.index["lesion_px"].tolist() == kidneys.sum(axis=(1, 2)).tolist()  # slice 0 is the leftmost
    written, original = put_back(tmp_path / "back.nii.gz", got), nib.load(tmp_path / "raw/case/kidneys.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(original.dataobj))
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-4)

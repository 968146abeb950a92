"""Scans of every layout become slices with the right units, places, areas and names."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractError, ExtractParams, GrowingArray, extract
from flipside.cohort.slicing import with_lesions
from flipside.core.params import ParamsError
from flipside.scans.geometry import Geometry, place_slices
from flipside.scans.layouts import DatasetParams
from flipside.scans.pixels import resize_bilinear
from flipside.scans.readers import ReadError
from stages import extract_slices
from tests.parameters import write_parameters
from tests.scans.scans_fixture import (
    CLASSES,
    DATA,
    EXTRACT,
    IMAGES,
    NIFTI,
    SERIES,
    TABLE,
    needs_data,
    write_case,
    write_nifti,
    write_series,
    write_slice,
)

AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def run(tmp_path, content: dict, size: int = 16, extract_changes: dict | None = None, **changes) -> Extracted:
    params = ExtractParams.model_validate(EXTRACT | (extract_changes or {}))
    block = DatasetParams.model_validate(content | {"root": str(tmp_path / "raw")} | changes).root
    (tmp_path / "out").mkdir(exist_ok=True)
    extract("toy", block, params, size, tmp_path / "out")
    return Extracted.open(tmp_path / "out")


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "IPL", "SRA"])
def test_volume_becomes_its_organ_slices(tmp_path, orientation):
    volume = write_case(tmp_path / "raw", "case_1", AFFINE, orientation=orientation)
    got = run(tmp_path, NIFTI)
    assert list(got.index["slice_id"]) == [f"case_1_z{z:04d}" for z in (1, 2, 3, 4)]
    assert list(got.index["organ_px"]) == [24, 24, 20, 24] and list(got.index["lesion_px"]) == [0, 0, 4, 0]
    row = got.index.iloc[0]
    assert (row.native_rows, row.native_cols) == (10, 12)
    spacing = (row.spacing_row_mm, row.spacing_col_mm, row.spacing_z_mm)
    assert spacing == pytest.approx((0.8 * 10 / 15, 0.7 * 12 / 16, 2.5))  # 8 mm high, 8.4 mm wide: a row is padding
    scan = got.scans.iloc[0]
    assert scan.lesion_volume_mm3 == pytest.approx(4 * 0.7 * 0.8 * 2.5) and scan.patient_id == "case_1"
    shown = np.stack([volume[::-1, ::-1, z].T for z in (1, 2, 3, 4)]).astype(np.float32)
    resized = [resize_bilinear(np.ascontiguousarray(image), 15, 16) for image in shown]
    np.testing.assert_allclose(got.images[:, :15], resized)
    np.testing.assert_array_equal(got.images[:, 15], np.repeat(shown.min(axis=(1, 2))[:, None], 16, axis=1))
    # Masks put back on the original grid are the original labels (the store is larger, so nothing is lost).
    back = place_slices(got.lesion[:], got.index["z"].to_numpy(), Geometry.from_json(scan.geometry))
    original = nib.load(tmp_path / "raw/case_1/segmentation.nii.gz")
    np.testing.assert_array_equal(back, np.asanyarray(original.dataobj) == 2)
    organ = place_slices(got.organ[:], got.index["z"].to_numpy(), Geometry.from_json(scan.geometry))
    np.testing.assert_array_equal(organ, np.asanyarray(original.dataobj) > 0)  # no gap tells where the lesion is
    np.testing.assert_array_equal(Geometry.from_json(scan.geometry).affine, original.affine)


def test_an_organ_holds_the_lesions_that_touch_it_and_no_others():
    organ, lesion = np.zeros((2, 8, 9), bool)
    organ[1:6, 1:5] = True
    organ[2:4, 2:4], lesion[2:4, 2:4] = False, True  # inside
    lesion[5:7, 4:6] = True  # at its border and beyond
    lesion[1:3, 7:9] = True  # elsewhere
    expected = organ | lesion
    expected[1:3, 7:9] = False
    np.testing.assert_array_equal(with_lesions(organ, lesion), expected)


def test_same_scan_in_any_orientation_gives_the_same_slices(tmp_path):
    results = []
    for orientation in ("RAS", "PIR"):
        write_case(tmp_path / orientation / "raw", "case_1", AFFINE, orientation=orientation)
        results.append(run(tmp_path / orientation, NIFTI))
    np.testing.assert_array_equal(results[0].images, results[1].images)
    np.testing.assert_array_equal(results[0].organ, results[1].organ)
    assert list(results[0].index["sha256"]) == list(results[1].index["sha256"])


def test_foreground_is_drawn_from_the_native_organ(tmp_path):
    volume = write_case(tmp_path / "raw", "case_1", AFFINE)
    run(tmp_path, NIFTI)
    with np.load(tmp_path / "out/foreground.npz") as foreground:
        assert list(foreground) == ["case_1"] and foreground["case_1"].shape == (50,)
        assert np.isin(foreground["case_1"], volume[2:8, 2:6, 1:5]).all()
    run(tmp_path, NIFTI, extract_changes={"foreground_samples": 10**6})
    with np.load(tmp_path / "out/foreground.npz") as foreground:
        kept = np.concatenate([volume[2:8, 2:6, z].ravel() for z in (1, 2, 4)] + [
            np.delete(volume[2:8, 2:6, 3].ravel(), [5, 6, 9, 10])])
        np.testing.assert_array_equal(np.sort(foreground["case_1"]), np.sort(kept))


def test_without_labels_every_slice_stays_and_air_is_no_foreground(tmp_path):
    volume = np.full((8, 8, 3), -1000, np.int16)
    volume[2:6, 2:6] = 50
    write_nifti(tmp_path / "raw/a/imaging.nii.gz", volume, AFFINE)
    got = run(tmp_path, NIFTI, organ=None, lesion=None)
    assert (got.index["organ_px"] == -1).all() and len(got.index) == 3
    assert got.organ[:][:, :, 1:15].all() and not got.organ[:][:, :, [0, 15]].any()  # padding is no foreground
    with np.load(tmp_path / "out/foreground.npz") as foreground:
        assert (foreground["a"] == 50).all() and len(foreground["a"]) == 48
    got = run(tmp_path, NIFTI, organ="nonzero", lesion=None)
    assert (got.index["organ_px"] == 64).all()


def test_unnamed_label_and_nan_are_refused(tmp_path):
    write_case(tmp_path / "raw", "a", AFFINE)
    with pytest.raises(ReadError, match=r"holds the label 2, expected \[1\]"):
        run(tmp_path, NIFTI, lesion=None)
    assert len(run(tmp_path, NIFTI, lesion=None, ignored=[2]).index) == 4
    write_nifti(tmp_path / "raw/a/imaging.nii.gz", np.full((12, 10, 6), np.nan, np.float32), AFFINE)
    with pytest.raises(ReadError, match="NaN"):
        run(tmp_path, NIFTI)


def test_bad_scans_stop_or_are_listed(tmp_path):
    write_case(tmp_path / "raw", "good", AFFINE)
    write_case(tmp_path / "raw", "torn", AFFINE)
    file = tmp_path / "raw/torn/imaging.nii.gz"
    file.write_bytes(file.read_bytes()[:200])
    write_nifti(tmp_path / "raw/no_organ/imaging.nii.gz", np.zeros((4, 4, 4), np.int16), AFFINE)
    write_nifti(tmp_path / "raw/no_organ/segmentation.nii.gz", np.zeros((4, 4, 4), np.uint8), AFFINE)
    with pytest.raises(ReadError, match="torn/imaging.nii.gz.*extract.on_error"):
        run(tmp_path, NIFTI)
    got = run(tmp_path, NIFTI, extract_changes={"on_error": "skip"})
    assert set(got.index["scan_id"]) == {"good"} and got.manifest["without_organ"] == ["no_organ/imaging.nii.gz"]
    assert [entry["file"] for entry in got.manifest["left_out"]] == ["torn/imaging.nii.gz"]
    assert "decoded" in got.manifest["left_out"][0]["reason"] and str(tmp_path) not in json.dumps(got.manifest)
    file = tmp_path / "raw/good/imaging.nii.gz"
    file.write_bytes(b"")
    with pytest.raises(ExtractError, match="no slice left of 3 scans.*1 have no organ in any slice.*2 can't be read"):
        run(tmp_path, NIFTI, extract_changes={"on_error": "skip"})


def test_series_with_masks_and_without_the_patients_name(tmp_path):
    pixels = write_series(tmp_path / "raw/doe_jane/dicom")
    affine = np.array([[-0.75, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, -30], [0, 0, 0, 1]], float)
    mask = np.zeros((6, 8, 4), np.uint8)
    mask[1:4, 2:6, 2] = 1
    write_nifti(tmp_path / "raw/doe_jane/organ.nii.gz", mask, affine)
    organ = {"files": ["{case}/organ.nii.gz"], "values": None}
    got = run(tmp_path, SERIES, size=8, organ=organ)
    assert list(got.index["z"]) == [2] and got.index["organ_px"][0] == 12
    np.testing.assert_allclose(got.images[0, :7], resize_bilinear((pixels[2] * 2.0 - 1000).astype(np.float32), 7, 8))
    first = got.scans["patient_id"][0]
    assert first == run(tmp_path, SERIES, size=4).scans["patient_id"][0] and len(first) == 16
    assert first != run(tmp_path, SERIES, extract_changes={"patient_salt": "other"}).scans["patient_id"][0]
    write_nifti(tmp_path / "raw/doe_jane/organ.nii.gz", mask[:, :, :2], affine)
    with pytest.raises(ReadError, match="don't lie on the grid"):
        run(tmp_path, SERIES, size=8, organ=organ)


@pytest.mark.parametrize("bad", [False, True])
def test_no_header_name_reaches_the_outputs(tmp_path, bad):
    write_series(tmp_path / "raw/Jane_HOSP-4711/dicom")
    write_series(tmp_path / "raw/other/dicom", PatientID="", PatientName="Roe^Richard")
    if bad:
        write_slice(tmp_path / "raw/Jane_HOSP-4711/dicom/Doe_fifth", np.zeros((8, 6)), (10.0, 20.0, 50.0))
    got = run(tmp_path, SERIES, extract_changes={"on_error": "skip"})
    assert got.manifest["counts"]["left_out"] == int(bad)
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes().lower()
        for name in (b"doe", b"jane", b"4711", b"hosp", b"richard", b"roe"):
            assert name not in content, (file.name, name)


def test_images_with_masks(tmp_path):
    image = np.arange(8 * 4, dtype=np.uint8).reshape(8, 4)
    mask = np.zeros((8, 4), np.uint8)
    mask[2:6, 1:3], mask[4, 1] = 1, 2
    for name in ("p1_a", "p1_b", "p2_a"):
        write_png(tmp_path / f"raw/images/{name}.png", image + ord(name[-1]))
        write_png(tmp_path / f"raw/masks/{name}.png", mask * (name != "p2_a"))
    got = run(tmp_path, IMAGES, patient="^(p[0-9])_")
    assert list(got.index["patient_id"]) == ["p1", "p1"] and list(got.index["slice_id"]) == ["p1_a", "p1_b"]
    assert list(got.index["organ_px"]) == [8, 8] and list(got.index["lesion_px"]) == [1, 1]
    assert got.index["spacing_row_mm"][0] == got.index["spacing_col_mm"][0] == 0.5  # 4 mm x 8 mm
    back = place_slices(got.lesion[:1], np.array([0]), Geometry.from_json(got.scans["geometry"][0]))
    np.testing.assert_array_equal(back, mask == 2)
    with pytest.raises(ReadError, match="no patient in 'p1_a'"):
        run(tmp_path, IMAGES, patient="^(x)")


def test_class_folders_keep_class_and_split(tmp_path):
    for part in ("Training", "Testing"):
        for number, name in enumerate(("healthy", "ill")):
            write_png(tmp_path / f"raw/{part}/{name}/file.png", np.full((6, 9), 50 + number, np.uint8))
    got = run(tmp_path, CLASSES, size=4)
    assert list(got.index["class_label"]) == [0, 1, 0, 1] and list(got.index["lesion_px"]) == [0] * 4
    assert list(got.scans["given_split"]) == ["test", "test", "train", "train"]
    assert got.index["sha256"].nunique() == 2  # of the file's bytes: copies are known by it
    np.testing.assert_allclose(got.images[:, 0, 0], [50, 51, 50, 51])


def test_mammograms_with_a_table(tmp_path):
    for number, patient in (("11", "A-1234"), ("22", "A-1234"), ("33", "B-5678")):
        write_slice(tmp_path / f"raw/images/{number}_x.dcm", np.full((8, 6), int(number)), PatientID=patient,
                    PixelSpacing=None, ImagerPixelSpacing=[0.1, 0.2] if number == "11" else None)
    (tmp_path / "raw/labels.csv").write_text("File Name;Bi-Rads\n11;1\n22;5\n33;3\n")
    got = run(tmp_path, TABLE, size=8)
    assert list(got.index["class_label"]) == [0, 1] and got.index["patient_id"].nunique() == 1
    assert list(got.index["spacing_row_mm"]) == pytest.approx([0.16, 1.0])  # 0.8 mm in 5 of 8 rows
    assert got.manifest["counts"]["class_left_out"] == 1 and "1234" not in got.index.to_csv()
    with pytest.raises(ReadError, match="22_x.dcm: has no pixel spacing"):
        run(tmp_path, TABLE, size=8, spacing_mm=None)
    (tmp_path / "raw/labels.csv").write_text("File Name;Bi-Rads\n11;1\n")
    with pytest.raises(ReadError, match="no row of .* is about '22'"):
        run(tmp_path, TABLE, size=8)


def test_growing_array_is_an_ordinary_npy(tmp_path):
    array = GrowingArray(tmp_path / "a.npy", (2, 3), np.float32)
    parts = [np.random.default_rng(n).normal(size=(n, 2, 3)) for n in (1, 0, 12)]
    for part in parts:
        array.append(part)
    array.close()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), np.concatenate(parts).astype(np.float32))


def test_stage_writes_whole_or_nothing(tmp_path, monkeypatch, capsys):
    write_case(tmp_path / "raw", "case_1", AFFINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["extract_slices"])
    monkeypatch.setattr(extract_slices, "check_all", lambda: None)  # the other stages' sections are not written here
    params = {"dataset": "toy", "datasets": {"toy": NIFTI | {"root": "raw"}}, "extract": EXTRACT, "image_size": 16,
              "runtime": {}}
    write_parameters(tmp_path, params)
    extract_slices.main()
    assert "4 slices of 1 scans, 1 patients" in capsys.readouterr().out
    first = {file.name: file.read_bytes() for file in Path("data/extracted").iterdir()}
    assert set(first) == {"images.npy", "organ.npy", "lesion.npy", "index.csv", "scans.csv", "foreground.npz",
                          "manifest.json"}
    for share in (["--part", "2/2"], ["--part", "1/2"], []):
        monkeypatch.setattr(sys, "argv", ["extract_slices", *share])
        extract_slices.main()
    assert "resuming extract_slices: 1 of 1 parts" in capsys.readouterr().out
    assert first == {file.name: file.read_bytes() for file in Path("data/extracted").iterdir()}
    Path("raw/case_1/imaging.nii.gz").write_bytes(b"")
    with pytest.raises(ReadError):
        extract_slices.main()
    assert first == {file.name: file.read_bytes() for file in Path("data/extracted").iterdir()}
    params["datasets"]["toy"]["imagge"] = 1
    write_parameters(tmp_path, params)
    with pytest.raises(ParamsError, match="imagge"):
        extract_slices.main()


@needs_data
def test_real_ct_with_its_kidneys(tmp_path):
    content = NIFTI | {"root": str(DATA / "totalsegmentator"), "image": "example_{case}.nii.gz", "ignored": "any",
                       "organ": {"files": ["example_seg_fast_force_split.nii.gz"], "values": [2, 3]}, "lesion": None}
    (tmp_path / "raw").symlink_to(DATA / "totalsegmentator")
    got = run(tmp_path, content, size=64, image="example_c{case}.nii.gz", root=content["root"])
    assert len(got.index) == 39 and got.index["organ_px"].min() > 0
    with np.load(tmp_path / "out/foreground.npz") as foreground:
        assert 0 < np.median(foreground["t"]) < 250  # HU of a kidney
    with pytest.raises(ReadError, match=r"kidney_left.nii.gz: labels of shape \(122, 101, 30\).*\(122, 101, 112\)"):
        run(tmp_path, content, root=content["root"], image="example_c{case}.nii.gz",
            organ={"files": ["segmentations/kidney_left.nii.gz"], "values": None})


@needs_data
def test_real_series_with_real_lesions_goes_back_onto_its_grid(tmp_path):
    tumours = ["{case}/{case}_livertumor1.nii.gz", "{case}/{case}_livertumor2.nii.gz"]
    got = run(tmp_path, SERIES, size=512, root=str(DATA), lesion={"files": tumours, "values": None},
              organ={"files": ["{case}/{case}_liver.nii.gz"], "values": None})
    truth = sum(np.asanyarray(nib.load(DATA / "ircad17" / f"ircad17_livertumor{n}.nii.gz").dataobj) > 0 for n in (1, 2))
    back = place_slices(got.lesion[:], got.index["z"].to_numpy(), Geometry.from_json(got.scans["geometry"][0]))
    np.testing.assert_array_equal(back, truth)
    assert "liver_17" not in (tmp_path / "out/index.csv").read_text()


@needs_data
@pytest.mark.parametrize(("changes", "slices", "patients"), [
    ({"patient": "^([^_]+)_", "ignored": "any", "lesion": None, "root": "curvas",
      "organ": IMAGES["organ"] | {"values": None, "colours": [[[200, 255], [200, 255], [0, 60]]]}}, 66, 14),
    ({"image": "images/{case}.*", "patient": "^(case_[0-9]+)_", "root": "kits19_slices"}, 34, 15),
])
def test_real_slices_with_masks(tmp_path, changes, slices, patients):
    got = run(tmp_path, IMAGES, size=32, **changes | {"root": str(DATA / changes["root"])})
    assert len(got.index) == slices and got.index["patient_id"].nunique() == patients

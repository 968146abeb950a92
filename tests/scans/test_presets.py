"""Presets of datasets.yaml on tiny made-up folders in the layouts in which the data sets are published."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.scans.layout import DatasetError
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from tests.scans.scans_fixture import EXTRACT, write_nifti, write_slice

ROOT = Path(__file__).parents[2]
PRESETS = yaml.safe_load((ROOT / "datasets.yaml").read_text())["datasets"]
CBIS_COLUMNS = "patient_id,pathology,image file path,cropped image file path,ROI mask file path\n"


def preset(name, root):
    return DatasetParams.model_validate(PRESETS[name] | {"root": str(root)}).root


def extracted(name, root, out):
    out.mkdir()
    extract(name, preset(name, root), ExtractParams(**EXTRACT), 16, out)
    return Extracted.open(out)


def write_png(path, value=90, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(1, 250, size).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def by_case(got, column):
    return dict(zip(got.index["scan_id"], got.index[column], strict=True))


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("phantom", "synthetic_effect")])
def test_data_that_are_not_there_are_named_with_folder_and_page(name, tmp_path):
    with pytest.raises(DatasetError) as raised:
        preset(name, tmp_path / "nowhere").find_scans(name)
    assert str(tmp_path / "nowhere") in str(raised.value) and PRESETS[name]["page"] in str(raised.value)


def test_shenzhen(tmp_path):
    for number, label in ((1, 0), (2, 0), (331, 1)):
        write_png(tmp_path / f"raw/CXR_png/CHNCXR_{number:04}_{label}.png", number)
    (tmp_path / "raw/ClinicalReadings").mkdir()
    (tmp_path / "raw/ClinicalReadings/CHNCXR_0001_0.txt").write_text("male 45yrs\nnormal\n")
    got = extracted("shenzhen", tmp_path / "raw", tmp_path / "out")
    assert by_case(got, "class_label") == {"0_CHNCXR_0001": 0, "0_CHNCXR_0002": 0, "1_CHNCXR_0331": 1}
    assert got.scans["patient_id"].nunique() == 3


@pytest.mark.parametrize(("name", "cases"), [
    ("brats", ("BraTS20_Training_001", "BraTS20_Training_002")),
    ("brats17", ("HGG/Brats17_2013_2_1", "LGG/Brats17_TCIA_101_1"))])
def test_brats(tmp_path, name, cases):
    for number, folder in enumerate(cases):
        case = folder.rsplit("/", 1)[-1]
        for channel, kind in enumerate(("flair", "t1", "t1ce", "t2")):
            volume = np.zeros((12, 10, 6), np.int16)
            volume[2:10, 2:8, 1:5] = 100 * (channel + 1) + number
            write_nifti(tmp_path / f"raw/{folder}/{case}_{kind}.nii.gz", volume, np.eye(4))
        labels = np.zeros((12, 10, 6), np.uint8)
        labels[4, 4, 2:4], labels[5, 4, 2:4] = 1, 4
        write_nifti(tmp_path / f"raw/{folder}/{case}_seg.nii.gz", labels, np.eye(4))
    got = extracted(name, tmp_path / "raw", tmp_path / "out")
    assert got.manifest["channels"] == ["flair", "t1", "t1ce", "t2"] and got.images.shape[1] == 4
    assert set(got.scans["scan_id"]) == {folder.rsplit("/", 1)[-1] for folder in cases}
    assert sorted(got.index["lesion_px"].unique()) == [0, 2] and len(got.index) == 8  # slices with brain
    (tmp_path / "raw" / cases[1] / f"{cases[1].rsplit('/', 1)[-1]}_t2.nii.gz").unlink()
    with pytest.raises(ReadError, match="0 volumes match .*_t2"):
        extracted(name, tmp_path / "raw", tmp_path / "again")


def test_mammograms_in_cc_view_alone(tmp_path):
    mini, inbreast = tmp_path / "raw/mini_ddsm/MINI-DDSM-Complete-PNG-16", tmp_path / "raw/inbreast"
    for number, (folder, letter) in enumerate((("Normal", "A"), ("Benign", "B"), ("Cancer", "C"))):
        for view in ("LEFT_CC", "LEFT_MLO", "LEFT_CC_Mask"):
            write_png(mini / f"{folder}/000{number}/{letter}_000{number}_1.{view}.png", number)
    for number, patient, view in ((20586908, "6c613a14b80a8591", "CC"), (20586934, "6c613a14b80a8591", "ML"),
                                  (20587054, "b6a4f750c6df4f90", "CC")):
        write_slice(inbreast / f"AllDICOMs/{number}_{patient}_MG_R_{view}_ANON.dcm", np.full((12, 10), number % 97))
    (inbreast / "INbreast.csv").write_text("File Name;Bi-Rads\n20586908;2\n20586934;2\n20587054;4a\n")
    got = extracted("mammograms_cc", tmp_path / "raw", tmp_path / "out")
    assert by_case(got, "class_label") == {
        "mini_ddsm_Normal_A_0000_1.LEFT": 0, "mini_ddsm_Benign_B_0001_1.LEFT": 0, "mini_ddsm_Cancer_C_0002_1.LEFT": 1,
        "inbreast_20586908": 0, "inbreast_20587054": 1}
    assert set(got.scans["site"]) == {"mini_ddsm", "inbreast"}


@pytest.fixture
def cbis(tmp_path):
    """CBIS-DDSM as the Cancer Imaging Archive gives it: two mammograms, the first with two masses, whose masks lie
    beside crops, in one row exchanged by the table."""
    root = tmp_path / "raw"

    def mass(case, place, names=("1-1.dcm", "1-2.dcm")):
        mask = np.zeros((12, 10))
        mask[place] = 255
        write_slice(root / f"CBIS-DDSM/{case}/07-20-2016-DDSM/1.0-ROI/{names[0]}", np.ones((4, 3)))  # the crop
        write_slice(root / f"CBIS-DDSM/{case}/07-20-2016-DDSM/1.0-ROI/{names[1]}", mask)

    rows = {"train": "", "test": ""}
    for part, patient, pathology, masses in (("train", "P_00001", "MALIGNANT", 2), ("test", "P_00016", "BENIGN", 1)):
        image = f"Mass-{part.title()}_{patient}_LEFT_CC"
        write_slice(root / f"CBIS-DDSM/{image}/07-20-2016-DDSM/1.0-full/1-1.dcm", np.arange(120).reshape(12, 10),
                    PatientID=image, PixelSpacing=None)
        for number in range(1, masses + 1):
            rows[part] += f"{patient},{pathology},{image}/1.3/1.3/000000.dcm,{image}_{number}/1.3/1.3/000000.dcm," \
                          f"{image}_{number}/1.3/1.3/000001.dcm\n"
            mass(f"{image}_{number}", (slice(3 * number, 3 * number + 2), 4),
                 ("1-1.dcm", "1-2.dcm") if number == 1 else ("1-2.dcm", "1-1.dcm"))
    for part, text in rows.items():
        (root / f"mass_case_description_{part}_set.csv").write_text(CBIS_COLUMNS + text)
    return root


def test_cbis_ddsm_has_the_union_of_an_images_masks(cbis, tmp_path):
    got = extracted("cbis_ddsm", cbis, tmp_path / "out")
    assert sorted(zip(got.index["class_label"], got.index["lesion_px"], strict=True)) == [(0, 0), (1, 4)]
    for file in (cbis / "CBIS-DDSM/Mass-Train_P_00001_LEFT_CC_1").rglob("1-2.dcm"):
        write_slice(file, np.ones((11, 10)))
    with pytest.raises(ReadError, match="has 12x10 pixels, the files of its mask .*_CC_1 4x3, 11x10"):
        extracted("cbis_ddsm", cbis, tmp_path / "again")


def test_masses_against_healthy_mammograms(cbis, tmp_path):
    (tmp_path / "both").mkdir()
    cbis.rename(tmp_path / "both/cbis_ddsm")
    for folder in ("Normal", "Cancer"):
        write_png(tmp_path / f"both/mini_ddsm/MINI-DDSM-Complete-PNG-16/{folder}/0001/A_0001_1.LEFT_CC.png")
    got = extracted("ddsm_masses", tmp_path / "both", tmp_path / "out")
    sites = got.index["scan_id"].str.extract("^(cbis|mini)")[0]
    assert sorted(zip(sites, got.index["class_label"], got.index["lesion_px"], strict=True)) == [
        ("cbis", 1, 2), ("cbis", 1, 4), ("mini", 0, 0)]


def test_masks_need_column_and_pattern(tmp_path):
    block = {key: value for key, value in PRESETS["cbis_ddsm"].items() if key != "masks"}
    with pytest.raises(ValueError, match="`mask_column` and `masks` need each other"):
        DatasetParams.model_validate(block)

"""The odd inputs of pictures, masks, tables and names: each with its right value, or the sentence that refuses it."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.scans.layout import DatasetError, refuse_linked_folders
from flipside.scans.layouts import DatasetParams
from flipside.scans.pictures import read_image_channels
from flipside.scans.readers import ReadError
from tests.scans.scans_fixture import DATA, needs_data

ODD = DATA / "odd_inputs"
EXTRACT = ExtractParams(on_error="fail", foreground_samples=100, patient_salt="salt")
REFUSED = {  # the sentence that names what is wrong
    "mask_alpha": r"masks/1\.png: is partly transparent\. Save it without an alpha channel",
    "mask_jpeg": r"masks/1\.jpg: is a mask in JPEG, which blurs labels at every edge\. Get the mask as PNG or TIFF",
    "sform_qform_conflict": r"a/ct\.nii\.gz: contradicts itself: by its sform \(code 1\) and its qform \(code 1\) its "
                            r"axes point to RAS and to LAS\. Get the file again",
}
LESIONS = {  # case: (pixels of the lesion, mean of the image in it)
    "exif_180": {"1": (24, 200.0)}, "mask_palette_reversed": {"1": (24, 134.125)}, "mask_rgb16": {"1": (24, 134.125)}}
VALUES = {  # case: (lowest, highest, different values)
    "png_rgb16": {"healthy_1": (21, 4081, 250), "ill_2": (10, 2040, 244)},
    "tiff_int8": {"healthy_healthy": (-128, 127, 156), "ill_ill": (-128, 127, 156)},
    "tiff_planar16": {"healthy_a": (0, 56700, 4096), "ill_b": (0, 56700, 4096)}}

pytestmark = needs_data


def layout_of(name, root=None):
    block = yaml.safe_load((ODD / name / "block.yaml").read_text())["x"]
    return DatasetParams.model_validate(block | {"root": str(root or ODD / name / "raw")}).root


def scans_of(name):
    layout = layout_of(name)
    return {scan.scan_id: scan for scan in (layout.read_scan(found, "salt") for found in layout.find_scans("x"))}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(ReadError, match=REFUSED[name]):
        scans_of(name)


@pytest.mark.parametrize("name", LESIONS)
def test_lesion(name):
    for case, scan in scans_of(name).items():
        mask = scan.lesion.slice(0)
        assert (mask.sum(), scan.volume.slice(0)[mask].mean()) == LESIONS[name][case]


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    found = {case: scan.volume.slice(0) for case, scan in scans_of(name).items()}
    assert {case: (image.min(), image.max(), len(np.unique(image))) for case, image in found.items()} == VALUES[name]


def test_planar_and_contiguous_are_one_picture():
    files = (ODD / "tiff_planar16/raw/healthy/a.tif", ODD / "tiff_planar16/raw/ill/b.tif")
    first, second = (read_image_channels(file, "rgb") for file in files)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.slice(0), other.slice(0))


def test_separators_at_line_ends():
    found = layout_of("csv_trailing_separator").find_scans("x")
    assert {scan.case: scan.class_label for scan in found} == {"11": 0, "22": 1, "33": 0}


def test_a_patient_called_na(tmp_path):
    extract("x", layout_of("patient_na"), EXTRACT, 16, tmp_path)
    extracted = Extracted.open(tmp_path)
    assert sorted(extracted.index["patient_id"]) == ["BO", "CE", "DI", "ED", "NA", "NA"]
    assert extracted.scans["patient_id"].nunique() == 5


def test_a_name_that_is_no_utf_8(tmp_path):
    with tarfile.open(ODD / "not_utf8_name/raw.tar") as archive:
        archive.extractall(tmp_path, filter="fully_trusted")
    (tmp_path / "out").mkdir()
    extract("x", layout_of("not_utf8_name", tmp_path / "raw"), EXTRACT, 16, tmp_path / "out")
    extracted = Extracted.open(tmp_path / "out")
    assert set(extracted.index["scan_id"]) == {r"M\xfcller", "other"}
    assert set(extracted.index["source_file"]) == {r"M\xfcller/ct.nii.gz", "other/ct.nii.gz"}


def test_a_linked_folder(tmp_path):
    """DVC looks behind the data set's own link (tests/test_dvc_yaml.py edits files there), but behind no other."""
    for folder in ("scans/a", "others"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "scans/a/file").symlink_to(tmp_path / "file")
    (tmp_path / "mine").symlink_to(tmp_path / "scans")
    refuse_linked_folders("mine", tmp_path / "mine")
    (tmp_path / "scans/b").symlink_to(tmp_path / "others")
    with pytest.raises(DatasetError, match="datasets.mine: .*mine/b is a link to a folder, behind which DVC "
                                           "doesn't look.*cp -rs .*others .*mine/b"):
        refuse_linked_folders("mine", tmp_path / "mine")


def test_every_odd_input_has_its_line():
    """Those of DICOM are in the other table."""
    here = {*REFUSED, *LESIONS, *VALUES, "csv_trailing_separator", "patient_na", "not_utf8_name", "dvc_linked_folder"}
    assert len(here) == 13 and here <= {path.name for path in Path(ODD).iterdir()}

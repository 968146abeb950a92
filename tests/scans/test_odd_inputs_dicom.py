"""The small DICOM inputs of `odd_inputs`, each read with its own block: its right value, or its sentence.

Kinds, not files: the other tests here make the same faults anew, in another form.
"""

import json

import numpy as np
import pytest
import yaml

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan
from tests.scans.scans_fixture import CT, DATA, EXTRACT, SERIES, TABLE, needs_data, write_series, write_slice


def extracted(folder, block: dict, **changes) -> Extracted:
    folder.mkdir(exist_ok=True)
    layout = DatasetParams.model_validate(block).root
    extract("x", layout, ExtractParams.model_validate(EXTRACT | changes), 8, folder)
    return Extracted.open(folder)


def block_of(name: str) -> dict:
    block = yaml.safe_load((DATA / f"odd_inputs/{name}/block.yaml").read_text())["x"]
    return block | {"root": str(DATA / f"odd_inputs/{name}" / block["root"])}


def read(name: str) -> list[Scan]:
    layout = DatasetParams.model_validate(block_of(name)).root
    return [layout.read_scan(found, "salt") for found in layout.find_scans("x")]


def values_of(scan: Scan) -> np.ndarray:
    """All slices in the scan's units, (Z,R,C)."""
    return np.stack([scan.volume.slice(z) for z in range(len(scan.volume.stored))])


@needs_data
@pytest.mark.parametrize(("name", "scans", "slices", "spacing", "values"), [
    ("cbis_rois", 2, 2, (1, 1, 1), None),
    ("enhanced_one_frame", 2, 2, (0.3, 0.4, 1), {400}),  # HU, where the pixels hold 700
    ("gantry_tilt_volume", 1, 6, (1, 1, 5), {100, 101, 102, 103, 104, 105}),
    ("interleaved_acquisitions", 2, 12, (0.5, 0.75, 5), {50, 300}),
    ("no_sequence_delimiter", 2, 2, (0.5, 0.75, 1), None),
    ("padding_monochrome1", 2, 2, (0.5, 0.75, 1), None),
    ("scout_alone", 1, 4, (0.5, 0.75, 5), {100, 101, 102, 103}),
    ("upper_case_dcm", 1, 8, (0.5, 0.75, 5), set(range(100, 108))),
])
def test_read_right(name, scans, slices, spacing, values):
    got = read(name)
    assert len(got) == scans and sum(len(scan.volume.stored) for scan in got) == slices
    assert got[0].spacing_mm == pytest.approx(spacing)
    if values is not None:
        assert set(np.concatenate([np.unique(values_of(scan)) for scan in got])) == values


@needs_data
def test_rescale_missing_in_some_is_refused(tmp_path):
    with pytest.raises(ReadError, match="3.dcm: has no RescaleSlope and RescaleIntercept, unlike 5 of the volume's 6"):
        extracted(tmp_path, block_of("rescale_missing_in_some"))


@needs_data
def test_values_beyond_counts(tmp_path):
    tilted = extracted(tmp_path / "tilt", block_of("gantry_tilt_volume"))
    assert tilted.scans["lesion_volume_mm3"][0] == pytest.approx(290.0, abs=0.05)
    padded = values_of(read("padding_monochrome1")[0])
    assert padded.min() == 95 and padded.max() == 1095
    volumes = read("interleaved_acquisitions")
    assert [scan.scan_id for scan in volumes] == ["s_acquisition_1", "s_acquisition_2"]
    assert [set(np.unique(values_of(scan))) for scan in volumes] == [{50}, {300}]
    scout = extracted(tmp_path / "scout", block_of("scout_alone")).manifest["left_out"]
    assert scout == [{"file": "scout/1.dcm", "reason": "is a localizer (ImageType LOCALIZER)"}]
    rois = extracted(tmp_path / "rois", block_of("cbis_rois")).manifest["left_out"]
    assert len(rois) == 2 and all("'ROI mask file path'" in entry["reason"] for entry in rois)


def series(root, **changes) -> dict:
    return SERIES | {"root": str(root), "series": None, "files": "*"} | changes


def test_files_that_the_pattern_misses_are_named(tmp_path):
    write_series(tmp_path / "raw/s/dicom", 4)
    (tmp_path / "raw/s/dicom/file_3").rename(tmp_path / "raw/s/dicom/file_3.IMA")
    with pytest.raises(ReadError, match=r"same series as files that match 'file_\?'.*1 files: file_3.IMA"):
        extracted(tmp_path / "out", SERIES | {"root": str(tmp_path / "raw"), "files": "file_?"})


@pytest.mark.parametrize(("changes", "reason"), [
    ({"ImageType": ["ORIGINAL", "PRIMARY", "SCOUT"]}, "is a localizer"),
    ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "is a screenshot or report"),
    ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, "is a screenshot or report"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None}, "is a secondary capture"),
    ({"Modality": "SR"}, "holds SR, not a scan"),
    ({"Modality": "CR", "ImagePositionPatient": None}, "an image of its own"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "is a colour image"),
])
def test_what_is_no_scan_is_left_out_and_named(tmp_path, changes, reason):
    write_series(tmp_path / "raw/study/a", 3)
    for number in range(2):
        write_slice(tmp_path / f"raw/study/b/{number}", np.zeros((8, 6)), (0, 0, number), "1.2.9", **changes)
    got = extracted(tmp_path / "out", series(tmp_path / "raw"))
    assert got.manifest["counts"]["scans"] == 1 and len(got.index) == 3
    (entry,) = got.manifest["left_out"]
    assert entry["file"] == "study/b/0" and reason in entry["reason"] and "1 more files" in entry["reason"]


def test_a_torn_header_is_no_report(tmp_path):
    write_series(tmp_path / "raw/a", 3)
    torn = write_slice(tmp_path / "raw/a/torn.dcm", np.zeros((8, 6)), (10, 20, -21))
    torn.write_bytes(torn.read_bytes()[:600])
    with pytest.raises(ReadError, match="torn.dcm"):
        extracted(tmp_path / "out", series(tmp_path / "raw"))
    got = extracted(tmp_path / "skip", series(tmp_path / "raw"), on_error="skip")
    assert got.manifest["counts"]["left_out"] == 1 and "jane" not in json.dumps(got.manifest)


def test_two_tables_columns_tell_images_from_their_parts(tmp_path):
    for name in ("1_L", "1_L_crop", "1_R"):
        write_slice(tmp_path / f"raw/images/{name}/x.dcm", np.ones((8, 6)), PatientID=name)
    (tmp_path / "raw/t.csv").write_text("file,side,crop,label\n1_L/x.dcm,L,1_L_crop/x.dcm,5\n1_R/x.dcm,R,,1\n")
    block = TABLE | {"root": str(tmp_path / "raw"), "image": "images/{case}/x.dcm", "tables": ["t.csv"],
                     "separator": ",", "file_column": "file", "file_pattern": "^([^/]+)/", "label_column": "label"}
    got = extracted(tmp_path / "out", block)
    assert got.manifest["counts"]["scans"] == 2
    (entry,) = got.manifest["left_out"]
    assert "under 'crop'" in entry["reason"]


@pytest.mark.parametrize("cut", [0, 5])
def test_compressed_pixels_without_their_closing_mark(tmp_path, cut):
    """Whole without it, they are read; cut off in the middle they are not."""
    from pydicom import dcmread

    from flipside.scans.dicom import read_dicom_image

    pixels = np.random.default_rng(0).integers(0, 900, (8, 6)).astype(np.int16)
    path = write_slice(tmp_path / "a.dcm", pixels)
    packed = dcmread(path)
    packed.compress("1.2.840.10008.1.2.5")  # RLE
    packed.save_as(path)
    content = path.read_bytes()
    assert content.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    path.write_bytes(content[:len(content) - 8 - cut])
    if cut:
        with pytest.raises(ReadError, match="a.dcm: ends in the middle of its compressed pixels"):
            read_dicom_image(path)
    else:
        np.testing.assert_array_equal(read_dicom_image(path)[0].slice(0), pixels * 2.0 - 1000)


def test_half_a_rescale_is_refused(tmp_path):
    write_series(tmp_path / "raw/a", 3, RescaleIntercept=None)
    with pytest.raises(ReadError, match="has RescaleSlope without RescaleIntercept"):
        extracted(tmp_path / "out", CT | series(tmp_path / "raw"))

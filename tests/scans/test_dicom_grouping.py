"""What makes one volume and what makes two, what they are called, and what a folder given as a path may hold."""

import os

import numpy as np
import pytest

from flipside.scans.dicom import read_dicom_volume
from flipside.scans.dicom_grouping import files_below, find_volumes
from flipside.scans.layout import DatasetError
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from tests.scans.scans_fixture import SERIES, write_series, write_slice

PIXELS = np.arange(48).reshape(8, 6)


def slices(folder, heights, first: int = 0, series: str = "1.2.3", **changes) -> None:
    for number, height in enumerate(heights, start=first):
        write_slice(folder / f"{number:03d}", PIXELS + number, (0, 0, height), series, **changes)


def sizes(folder) -> list[int]:
    return [len(volume.headers) for volume in find_volumes(files_below(folder)).volumes]


def names(root, **changes) -> list[str]:
    layout = DatasetParams.model_validate(SERIES | {"root": str(root), "series": None} | changes).root
    return [found.name for found in layout.find_scans("x")]


def test_acquisitions_that_continue_each_other_are_one_volume(tmp_path):
    slices(tmp_path / "blocks", [0, 3, 6], AcquisitionNumber=1)
    slices(tmp_path / "blocks", [9, 12], 3, AcquisitionNumber=2)
    assert sizes(tmp_path / "blocks") == [5]
    for number in range(4):
        slices(tmp_path / "steps", [3 * number], number, AcquisitionNumber=number)
    assert sizes(tmp_path / "steps") == [4]


def test_acquisitions_with_a_gap_between_them_are_two_volumes(tmp_path):
    slices(tmp_path, [0, 3, 6], AcquisitionNumber=1)
    slices(tmp_path, [100, 103], 3, AcquisitionNumber=2)
    assert sizes(tmp_path) == [3, 2]


def test_orientations_and_sizes_of_one_series_are_volumes_of_their_own(tmp_path):
    slices(tmp_path, [0, 3, 6])
    slices(tmp_path, [0, 3], 3, ImageOrientationPatient=[1, 0, 0, 0, 0.8, 0.6])
    for number, height in enumerate((0, 3), start=5):
        write_slice(tmp_path / f"{number:03d}", np.zeros((4, 4)), (0, 0, height), "1.2.3")
    found = find_volumes(files_below(tmp_path)).volumes
    assert [(len(volume.headers), volume.part) for volume in found] == [(3, "grid 1"), (2, "grid 2"), (2, "grid 3")]


def test_one_slice_that_differs_makes_its_series_a_fault(tmp_path):
    slices(tmp_path, [0, 3, 6])
    slices(tmp_path, [9], 3, PixelSpacing=[1, 1])
    (volume,) = find_volumes(files_below(tmp_path)).volumes
    with pytest.raises(ReadError, match="003: 4 slices of a series are of several pixel spacings.*differs from 000"):
        raise volume.fault


def test_phases_that_no_header_tells_apart_are_refused(tmp_path):
    slices(tmp_path, [0, 3, 6])
    slices(tmp_path, [0, 3, 6], 3)
    with pytest.raises(ReadError, match="lies at the same position as"):
        read_dicom_volume(tmp_path)


def test_a_copy_of_a_file_counts_once(tmp_path):
    write_series(tmp_path / "a", 3)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/copy.dcm").write_bytes((tmp_path / "a/file_0").read_bytes())
    found = find_volumes(files_below(tmp_path))
    assert [len(volume.headers) for volume in found.volumes] == [3]
    assert [error.reason for error in found.left_out] == ["is a copy of file_0"]


def test_a_folder_given_as_a_path(tmp_path):
    write_series(tmp_path / "study/ct", 3)
    write_slice(tmp_path / "study/scout/1", PIXELS, series="1.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "study/notes.txt").write_text("not DICOM")
    volume, header = read_dicom_volume(tmp_path / "study")
    assert len(volume.stored) == 3 and header.patient == "HOSP-4711"
    image, _ = read_dicom_volume(tmp_path / "study/scout/1")
    assert image.geometry.is_image
    with pytest.raises(ReadError, match="holds no DICOM series of slices: .*is a localizer"):
        read_dicom_volume(tmp_path / "study/scout")
    slices(tmp_path / "study/other", [0, 3], series="1.7")
    with pytest.raises(ReadError, match=r"holds 2 volumes, expected one: 3 slices from file_0, 2 slices from 000"):
        read_dicom_volume(tmp_path / "study")


def test_links_to_folders_are_followed_once(tmp_path):
    write_series(tmp_path / "elsewhere", 3)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/linked").symlink_to(tmp_path / "elsewhere")
    os.symlink(tmp_path / "raw", tmp_path / "raw/loop")
    assert sizes(tmp_path / "raw") == [3]


def test_names_are_paths_where_they_are_unique(tmp_path):
    slices(tmp_path / "st0/se0", [0, 3], series="1.1")
    slices(tmp_path / "st0/se1", [0, 3], series="1.2")
    slices(tmp_path / "st1", [0, 3], series="1.3")
    slices(tmp_path / "st1", [0, 3], 2, series="1.4", PatientID="B")
    found = names(tmp_path)
    assert found[:2] == ["st0_se0", "st0_se1"] and len(set(found)) == 4
    assert all(name.startswith("st1_") and len(name) == len("st1_") + 8 for name in found[2:])
    assert names(tmp_path, series="{case}") != found and names(tmp_path) == found
    slices(tmp_path / "st0/se1", [1.5, 4.5], 2, series="1.2", AcquisitionNumber=2)
    assert "st0_se0" in names(tmp_path) and any(name.endswith("_acquisition_2") for name in names(tmp_path))


def test_a_folder_without_series_is_refused_by_name(tmp_path):
    write_slice(tmp_path / "raw/1", PIXELS, Modality="SR")
    with pytest.raises(DatasetError, match="holds no DICOM series.*first of 1 files left out: .*holds SR, not a scan"):
        names(tmp_path / "raw")

"""Multi-frame DICOM: frames are placed and scaled by their functional groups, as highdicom writes and reads them."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from flipside.scans.dicom import read_dicom_image, read_dicom_series, read_dicom_volume
from flipside.scans.dicom_grouping import find_volumes
from flipside.scans.readers import ReadError
from tests.scans.scans_fixture import write_series, write_slice

COMPLETE = {  # what highdicom wants of the files that it converts
    "StudyInstanceUID": "1.2.33", "FrameOfReferenceUID": "1.2.44", "StudyID": "1", "StudyDate": "20200101",
    "StudyTime": "101010", "AccessionNumber": "1", "PatientBirthDate": "19700101", "PatientSex": "F",
    "ReferringPhysicianName": "X", "InstanceNumber": 1, "SeriesNumber": 1,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ContentDate": "20200101", "ContentTime": "101010",
    "AcquisitionDate": "20200101", "AcquisitionTime": "101010", "Manufacturer": "M", "PatientPosition": "HFS", "AcquisitionNumber": 1, "KVP": 100}


def item(**values) -> Items:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return Items([dataset])


def write_enhanced(path: Path, pixels: np.ndarray, positions: list[float], own: list[dict] | None = None,
                   shared: dict | None = None, **changes) -> Path:
    """An enhanced CT (F,R,C) at heights along z; functional groups of each frame (`own`) and of all (`shared`)."""
    write_slice(path, pixels[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1", PixelSpacing=None, RescaleSlope=None,
                RescaleIntercept=None, ImagePositionPatient=None, ImageOrientationPatient=None, SliceThickness=None,
                NumberOfFrames=len(pixels), **changes)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset.SharedFunctionalGroupsSequence = item(**{
        "PlaneOrientationSequence": item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "PixelMeasuresSequence": item(PixelSpacing=[0.3, 0.4], SliceThickness=2, SpacingBetweenSlices=3),
        "PixelValueTransformationSequence": item(RescaleSlope=2, RescaleIntercept=-1000, RescaleType="HU"),
        } | (shared or {}))
    frames = [item(PlanePositionSequence=item(ImagePositionPatient=[1, 2, height]), **groups)
              for height, groups in zip(positions, own or [{}] * len(positions), strict=True)]
    dataset.PerFrameFunctionalGroupsSequence = Items([frame[0] for frame in frames])
    dataset.save_as(path)
    return path


def whole(volume) -> np.ndarray:
    return np.stack([volume.slice(z) for z in range(len(volume.stored))])


PIXELS = np.random.default_rng(5).integers(0, 900, (4, 8, 6)).astype(np.int16)


def test_a_series_and_its_enhanced_twin_by_highdicom_are_the_same_volume(tmp_path):
    write_series(tmp_path / "slices", 5, **COMPLETE)
    files = sorted((tmp_path / "slices").iterdir())
    slices = [pydicom.dcmread(file) for file in files]
    for number, each in enumerate(slices, start=1):
        each.InstanceNumber = number
    highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices, series_instance_uid="1.2.55", series_number=2, sop_instance_uid="1.2.66", instance_number=1,
    ).save_as(tmp_path / "enhanced")
    classic, _ = read_dicom_series(files)
    enhanced, header = read_dicom_volume(tmp_path / "enhanced")
    assert header.frames == 5 and enhanced.stored.dtype == np.int16
    np.testing.assert_array_equal(enhanced.stored, classic.stored)
    np.testing.assert_allclose(enhanced.geometry.affine, classic.geometry.affine)
    theirs = highdicom.imread(tmp_path / "enhanced").get_volume()  # (K,R,C) from the highest slice down, LPS affine
    np.testing.assert_array_equal(theirs.array[::-1], whole(enhanced))
    assert theirs.spacing == pytest.approx(enhanced.geometry.slice_spacing_mm[::-1][:1] + (0.5, 0.75))


def test_frames_in_any_order_with_a_scale_of_their_own(tmp_path):
    heights = [6.0, 0.0, 9.0, 3.0]
    scales = [{"PixelValueTransformationSequence": item(RescaleSlope=slope, RescaleIntercept=slope * 10)}
              for slope in (1.0, 2.0, 3.0, 4.0)]
    path = write_enhanced(tmp_path / "a.dcm", PIXELS, heights, scales)
    volume, _ = read_dicom_volume(path)
    expected = [PIXELS[frame] * (frame + 1.0) + (frame + 1) * 10 for frame in np.argsort(heights)]
    np.testing.assert_allclose(whole(volume), expected)
    assert volume.geometry.slice_spacing_mm == pytest.approx((0.3, 0.4, 3))
    assert volume.geometry.affine[:3, 3] == pytest.approx([-1, -2, 0])


def test_compressed_frames(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", PIXELS, [0.0, 3.0, 6.0, 9.0])
    packed = pydicom.dcmread(path)
    packed.compress("1.2.840.10008.1.2.5")
    packed.save_as(path)
    np.testing.assert_allclose(whole(read_dicom_volume(path)[0]), PIXELS * 2.0 - 1000)
    packed.NumberOfFrames = 8
    packed.PerFrameFunctionalGroupsSequence.extend(
        item(PlanePositionSequence=item(ImagePositionPatient=[1, 2, height]))[0] for height in (12, 15, 18, 21))
    packed.save_as(path)
    with pytest.raises(ReadError, match="says 8 frames, more than it holds"):
        read_dicom_volume(path)


def test_one_frame_is_an_image_with_its_spacing_and_units(tmp_path):
    image, header = read_dicom_image(write_enhanced(tmp_path / "a.dcm", PIXELS[:1], [0.0]))
    np.testing.assert_allclose(image.slice(0), PIXELS[0] * 2.0 - 1000)
    assert header.spacing_mm == (0.3, 0.4)


@pytest.mark.parametrize("key", ["FrameAcquisitionNumber", "StackID", "TemporalPositionIndex"])
def test_two_phases_in_one_file_are_two_volumes(tmp_path, key):
    marks = [{"FrameContentSequence": item(**{key: str(number) if key == "StackID" else number})}
             for number in (1, 2, 1, 2)]
    path = write_enhanced(tmp_path / "a.dcm", PIXELS, [0.0, 0.0, 3.0, 3.0], marks)
    first, second = find_volumes([path]).volumes
    assert [header.frame for header in first.headers] == [0, 2] and second.part.endswith(" 2")
    with pytest.raises(ReadError, match="holds 2 volumes, expected one: 2 slices from a.dcm"):
        read_dicom_volume(path)


def test_frames_without_functional_groups_need_a_stated_step(tmp_path):
    def write(name: str, **changes) -> Path:
        path = write_slice(tmp_path / name, PIXELS[0], NumberOfFrames=4, **changes)
        dataset = pydicom.dcmread(path)
        dataset.PixelData = PIXELS.tobytes()
        dataset.save_as(path)
        return path

    for changes in ({"SpacingBetweenSlices": 2.5}, {"GridFrameOffsetVector": [0, 2.5, 5, 7.5]}):
        volume, _ = read_dicom_volume(write("placed", **changes))
        assert volume.geometry.slice_spacing_mm[2] == 2.5
        np.testing.assert_allclose(whole(volume), PIXELS * 2.0 - 1000)
    for changes in ({}, {"SpacingBetweenSlices": 2.5, "FrameIncrementPointer": 0x00181063, "FrameTime": 40}):
        with pytest.raises(ReadError, match="has 4 frames and no ImagePositionPatient for each of them"):
            read_dicom_volume(write("film", **changes))


@pytest.mark.parametrize(("change", "reason"), [
    (lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop(), "has 4 frames, but functional groups for 3"),
    (lambda dataset: delattr(dataset, "PerFrameFunctionalGroupsSequence"), "has 4 frames and no ImagePositionPatient"),
    (lambda dataset: delattr(dataset.SharedFunctionalGroupsSequence[0], "PixelMeasuresSequence"), "no PixelSpacing"),
])
def test_frames_that_cannot_be_placed_are_refused(tmp_path, change, reason):
    path = write_enhanced(tmp_path / "a.dcm", PIXELS, [0.0, 3.0, 6.0, 9.0])
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    with pytest.raises(ReadError, match=reason) as caught:
        read_dicom_volume(path)
    assert caught.value.file == str(path) and caught.value.remedy

"""DICOM studies: series found in folders, nobody's name in what is written, SEG and parametric map on their voxels."""

import highdicom
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest

from flipside.scans.dicom import read_dicom_volume
from tests.prediction.conftest import NIFTI, body, write_run
from tests.prediction.test_predict import call, everything, table_of
from tests.scans.scans_fixture import write_slice
from tests.scans.test_multiframe import COMPLETE, write_enhanced

COS, SIN = np.cos(0.3), np.sin(0.3)
ORIENTATIONS = {
    "axial": [1, 0, 0, 0, 1, 0], "flipped": [-1, 0, 0, 0, 1, 0],
    "oblique": [COS, SIN, 0, -SIN * COS, COS * COS, SIN], "sagittal": [0, 1, 0, 0, 0, -1],
}


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", NIFTI | {"plane": "native"})


def write_study(folder, orientation, upwards=True):
    """A series of `body`, 2.5 mm apart, in shuffled files; the pixels (K,R,C) in the order of their positions."""
    pixels = body((40, 36, 10)).transpose(2, 1, 0)  # (K,R,C)
    normal = np.cross(orientation[:3], orientation[3:]) * (1 if upwards else -1)
    for number, k in enumerate(np.random.default_rng(2).permutation(len(pixels))):
        position = (np.array([10.0, 20.0, -30.0]) + 2.5 * k * normal).round(6)
        values = COMPLETE | {"InstanceNumber": number + 1, "ImageOrientationPatient": orientation}
        write_slice(folder / f"f{number}.dcm", pixels[k], tuple(position), **values | {
            "RescaleSlope": 1, "RescaleIntercept": 0, "SliceThickness": 2.5})
    return pixels


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_segmentation_and_map_lie_on_the_series_own_voxels(run, tmp_path, name, upwards):
    study = tmp_path / "study"
    write_study(study, ORIENTATIONS[name], upwards)
    call(study, "-o", tmp_path / "out", "--run", run, "--method", "intensity", "--dicom")
    table = table_of(tmp_path / "out")
    assert table["status"].tolist() == ["done"] and table["warnings"].isna().all()
    folder = tmp_path / "out" / table.index[0]
    nifti = nib.load(folder / "mask.nii.gz")
    mask = np.asarray(nifti.dataobj).transpose(2, 1, 0) > 0  # (K,R,C)
    volume, _ = read_dicom_volume(study)
    np.testing.assert_allclose(nifti.affine, volume.geometry.affine, atol=1e-4)
    assert 100 < mask.sum() < 3000

    # By position, frame by frame, with pydicom alone.
    segmentation = pydicom.dcmread(folder / "segmentation.dcm")
    sources = {str(file.SOPInstanceUID): file for file in map(pydicom.dcmread, study.iterdir())}
    frames = segmentation.pixel_array.reshape(-1, 36, 40)
    marked = 0
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        source = sources[groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, source.ImagePositionPatient, atol=1e-4)
        bright = source.pixel_array > 200
        assert (bright & (frame > 0)).sum() / (bright | (frame > 0)).sum() > 0.4
        marked += int(frame.sum())
    assert marked == mask.sum()
    plane = segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    np.testing.assert_allclose(plane.ImageOrientationPatient, ORIENTATIONS[name], atol=1e-5)

    # As a volume, with highdicom: the same voxels at the same places as the NIfTI file.
    theirs = highdicom.seg.segread(folder / "segmentation.dcm").get_volume(combine_segments=True)
    places = np.argwhere(theirs.array > 0)
    here = (theirs.affine @ np.c_[places, np.ones(len(places))].T)[:3] * np.array([[-1], [-1], [1]])  # LPS to RAS
    voxels = np.rint(np.linalg.inv(nifti.affine) @ np.r_[here, np.ones((1, len(places)))])[:3].astype(int)
    assert np.asarray(nifti.dataobj)[tuple(voxels)].all() and len(places) == mask.sum()
    attribution = highdicom.pm.ParametricMap.from_dataset(pydicom.dcmread(folder / "attribution.dcm"))
    values = attribution.get_volume(apply_real_world_transform=True)
    places = np.argwhere(values.array > 0.7)
    here = (values.affine @ np.c_[places, np.ones(len(places))].T)[:3] * np.array([[-1], [-1], [1]])
    voxels = np.rint(np.linalg.inv(nifti.affine) @ np.r_[here, np.ones((1, len(places)))])[:3].astype(int)
    np.testing.assert_allclose(nib.load(folder / "attribution.nii.gz").get_fdata()[tuple(voxels)],
                               values.array[tuple(places.T)], atol=1e-4)


def test_the_objects_say_what_made_them_and_invent_nobody(run, tmp_path):
    write_study(tmp_path / "Doe_Jane/ct", ORIENTATIONS["axial"])
    for out, options in (("named", []), ("empty", ["--anonymise"])):
        call(tmp_path / "Doe_Jane", "-o", tmp_path / out, "--run", run, "--method", "coin", "--dicom", *options)
        (folder,) = [path for path in (tmp_path / out).iterdir() if path.is_dir()]
        for file in ("segmentation.dcm", "attribution.dcm"):
            made = pydicom.dcmread(folder / file)
            assert str(made.PatientName) == ("" if options else "Doe^Jane")
            assert (made.PatientID or "") == ("" if options else "HOSP-4711")
            assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == ("1.2.33", "1.2.44")
            assert made.SeriesInstanceUID != "1.2.3" and made.Manufacturer == "Flipside"
            assert not made.get("InstitutionName") and not made.get("OperatorsName")
            assert not made.get("ContentCreatorName")
        segment = pydicom.dcmread(folder / "segmentation.dcm").SegmentSequence[0]
        assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentAlgorithmName == "Flipside coin"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "Flipside coin"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"
        for file, content in everything(tmp_path / out).items():
            if file.endswith((".csv", ".json", ".html")):
                assert b"doe" not in content.lower() and b"HOSP-4711" not in content, file
            assert "doe" not in file.lower()


def test_a_multi_frame_file(run, tmp_path):
    pixels = body((40, 36, 10)).transpose(2, 1, 0)
    order = [3, 0, 9, 1, 5, 2, 8, 4, 7, 6]
    write_enhanced(tmp_path / "a.dcm", pixels[order], [3.0 * k for k in order],
                   shared={"PixelValueTransformationSequence": pydicom.Sequence([_item(RescaleSlope=1,
                           RescaleIntercept=0, RescaleType="HU")])}, **COMPLETE)
    call(tmp_path / "a.dcm", "-o", tmp_path / "out", "--run", run, "--method", "intensity", "--dicom")
    table = table_of(tmp_path / "out")
    assert table["warnings"].isna().all()
    folder = tmp_path / "out" / table.index[0]
    mask = np.asarray(nib.load(folder / "mask.nii.gz").dataobj).transpose(2, 1, 0)
    segmentation = pydicom.dcmread(folder / "segmentation.dcm")
    for frame, groups in zip(segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        height = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        np.testing.assert_array_equal(frame, mask[round(height / 3)])


def _item(**values):
    dataset = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def test_several_series_a_localizer_and_a_mammogram_in_one_folder(run, tmp_path):
    study = tmp_path / "pacs/S1"
    write_study(study / "a", ORIENTATIONS["axial"])
    write_slice(study / "scout.dcm", np.zeros((20, 20), np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
                series="1.2.9")
    picture = np.random.default_rng(0).integers(0, 900, (30, 20)).astype(np.int16)
    write_slice(study / "m.dcm", picture, Modality="MG", ImagePositionPatient=None, ImageOrientationPatient=None,
                series="1.2.8")
    (study / "broken.dcm").write_bytes((study / "m.dcm").read_bytes()[:200])
    call(tmp_path / "pacs", "-o", tmp_path / "out", "--run", run, "--method", "intensity", fails=True)
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    done = table[table["status"] == "done"]
    assert len(done) == 2 and sorted(done["lesion_px"].notna()) == [False, True]
    assert len(table) == 3 and "broken" in table["file"].iloc[-1]

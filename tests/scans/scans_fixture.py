"""Small scans of every kind, written by the tests themselves, and the real images where FLIPSIDE_TEST_DATA has them."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

DATA = Path(os.environ.get("FLIPSIDE_TEST_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="FLIPSIDE_TEST_DATA doesn't name the folder of real images")

CT = {"modality": "ct", "anomalies": False, "lesion_threshold_px": 0, "page": "https://example.org/data"}
NIFTI = CT | {
    "layout": "nifti_cases", "image": "{case}/imaging.nii.gz", "ignored": [], "patient": None,
    "organ": {"files": ["{case}/segmentation.nii.gz"], "values": [1]},
    "lesion": {"files": ["{case}/segmentation.nii.gz"], "values": [2]},
}
SERIES = CT | {"layout": "dicom_series", "series": "{case}/dicom", "files": "*", "organ": None, "lesion": None,
               "ignored": []}
IMAGES = CT | {
    "layout": "image_mask", "modality": "other", "image": "images/{case}.png", "ignored": [], "patient": None,
    "organ": {"files": ["masks/{case}.png"], "values": [1, 2], "colours": None},
    "lesion": {"files": ["masks/{case}.png"], "values": [2], "colours": None}, "spacing_mm": [0.5, 2.0],
}
CLASSES = CT | {
    "layout": "class_folders", "modality": "other", "image": "{split}/{class}/{case}.png",
    "classes": {"healthy": 0, "ill": 1}, "splits": {"Training": "train", "Testing": "test"}, "patient": None,
    "spacing_mm": [1.0, 1.0],
}
TABLE = CT | {
    "layout": "dicom_birads", "modality": "other", "image": "images/{case}_*.dcm", "tables": ["labels.csv"],
    "separator": ";", "file_column": "File Name", "file_pattern": "^([0-9]+)", "label_column": "Bi-Rads",
    "classes": {"1": 0, "3": None, "4a": 1, "5": 1}, "patient_column": None, "patient": None, "spacing_mm": [1.0, 1.0],
}
EXTRACT = {"on_error": "fail", "foreground_samples": 50, "patient_salt": "salt of the tests"}


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def write_case(root: Path, name: str, affine: np.ndarray, shape=(12, 10, 6), orientation: str = "RAS") -> np.ndarray:
    """A case with organ (1) in RAS slices 1 to 4 and lesion (2) in slice 3, stored in an orientation; RAS int16 HU."""
    volume = np.random.default_rng(len(name)).integers(-100, 200, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 2:6, 1:5] = 1
    labels[3:5, 3:5, 3] = 2
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"),
                                           nib.orientations.axcodes2ornt(orientation))
    for file, array in (("imaging", volume), ("segmentation", labels)):
        image = nib.Nifti1Image(array, affine).as_reoriented(turn)
        write_nifti(root / name / f"{file}.nii.gz", np.asanyarray(image.dataobj), image.affine)
    return volume


def write_slice(path: Path, pixels: np.ndarray, position=(0.0, 0.0, 0.0), series: str = "1.2.3", **changes) -> Path:
    """A CT slice of a patient called Doe^Jane with the id HOSP-4711; a change to None deletes the element."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "Modality": "CT", "PatientName": "Doe^Jane", "PatientID": "HOSP-4711", "SeriesInstanceUID": series,
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "RescaleSlope": 2, "RescaleIntercept": -1000, "PixelSpacing": [0.5, 0.75],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": list(position), "SliceThickness": 3,
        "PixelData": pixels.astype("<i2").tobytes(),
    } | changes
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_series(folder: Path, count: int = 4, **changes) -> np.ndarray:
    """A series in shuffled file order, 3 mm apart; its stored pixels (count,R,C), lowest slice first."""
    pixels = np.random.default_rng(1).integers(0, 1000, (count, 8, 6)).astype(np.int16)
    for number, k in enumerate(np.random.default_rng(2).permutation(count)):
        write_slice(folder / f"file_{number}", pixels[k], (10.0, 20.0, -30.0 + 3 * k), **changes)
    return pixels

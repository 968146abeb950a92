"""DICOM: one series as a volume with a RAS affine, or one image; header names never leave this file.

Positions and orientations follow DICOM PS3.3 C.7.6.2 (image plane); DICOM counts millimetres towards the patient's
left, back and head (LPS), NIfTI towards right, front and head (RAS).
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut

from flipside.scans.geometry import SIDE_MM, Geometry, GeometryError, plausible_sides, to_slices
from flipside.scans.readers import ReadError, Volume, refusing

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
POSITION_TOLERANCE = 0.25  # of the slice step; scanners round positions, a missing slice moves the rest by a whole step
NO_SCAN = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "ECG"}
OF_THE_PATIENT = ("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName",
                  "PatientMotherBirthName")
IDENTIFYING = (*OF_THE_PATIENT, "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "MedicalRecordLocator",
               "AccessionNumber", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName",
               "PerformingPhysicianName", "PhysiciansOfRecord", "OperatorsName")
SHORT = 3  # letters from which on a word is looked for within others
MAX_PIXELS = 1 << 28  # of one image; the largest mammograms have a tenth
LEAVE_OUT = "Leave it out with extract.on_error: skip, or move it away"


@dataclass(frozen=True)
class Header:
    """What is needed of a file before its pixels."""

    path: Path
    series: str  # SeriesInstanceUID
    patient: str  # PatientID; without one, the UID of the study or series; may be empty
    names: tuple[str, ...]  # identifying words
    shape: tuple[int, int]  # rows, columns
    spacing_mm: tuple[float, float] | None  # rows, columns
    position: np.ndarray | None  # (3,) LPS mm of the first pixel's centre
    axes: np.ndarray | None  # (2,3) LPS unit vectors along a row and down a column
    thickness_mm: float | None  # distance to the next slice as the header states it
    coding: tuple  # rescale slope and intercept, bits and sign: equal where stored values mean the same


class BoundedFile(io.BufferedReader):
    """A file for pydicom, which allocates what a damaged length asks for: never more here than the file holds."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.size if size is None or size < 0 else min(size, self.size))


def salted_hash(text: str, salt: str) -> str:
    """Sixteen hexadecimal digits of sha256(salt + text): equal for equal patients, without a way back."""
    return hashlib.sha256((salt + text).encode()).hexdigest()[:16]


def without_names(text: str, names: Sequence[str], salt: str) -> str:
    """A path or message in which every identifying word is replaced by a salted hash; a short one (Li, 07) only where
    it stands alone, since it is part of many others."""
    alone = r"(?<![^\W_]){}(?![^\W_])"
    patterns = [re.escape(name) if len(name) >= SHORT else alone.format(re.escape(name))
                for name in sorted(names, key=len, reverse=True)]
    if not patterns:
        return text
    return re.sub("|".join(patterns), lambda match: salted_hash(match[0].lower(), salt)[:8], text, flags=re.IGNORECASE)


def identifying_words(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """What a header says of whose scan it is, in words and lower case, to keep it out of everything that is written."""
    words = set()
    for keyword in IDENTIFYING:
        element = dataset.get(keyword)
        for value in element if isinstance(element, MultiValue) else [element]:
            text = str(value or "").strip().lower()
            parts = [text, *re.split(r"[\^\s,=/]+", text)]
            if keyword.endswith("Date") and len(text) == 8:
                parts += [f"{text[:4]}{dash}{text[4:6]}{dash}{text[6:]}" for dash in "-_."]
            words |= {part for part in parts if len(part) >= (1 if keyword in OF_THE_PATIENT else SHORT)}
    return tuple(sorted(words))


def words_in_header(path: Path) -> tuple[str, ...]:
    """Identifying words of any file, for messages about one that can't be read; () where nothing can be found."""
    try:
        with warnings.catch_warnings(), BoundedFile(path) as file:
            warnings.simplefilter("ignore")
            return identifying_words(pydicom.dcmread(file, stop_before_pixels=True, force=True))
    except Exception:  # whatever a damaged header makes the parser raise
        return ()


def read_header(path: Path) -> Header:
    """Header of a single-frame grey DICOM image. Raises ReadError for anything else."""
    with refusing(path, LEAVE_OUT):
        try:
            with BoundedFile(path) as file:
                dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            raise ReadError(path, "is not a DICOM file (it doesn't begin as one)", LEAVE_OUT) from None
        _check_kind(path, dataset)
        spacing = _numbers(dataset, "PixelSpacing", 2) or _numbers(dataset, "ImagerPixelSpacing", 2)
        if spacing and not plausible_sides(spacing):
            raise ReadError(path, f"has the pixel spacing {spacing}, expected {SIDE_MM[0]} to {SIDE_MM[1]} mm",
                            LEAVE_OUT)
        position = _numbers(dataset, "ImagePositionPatient", 3)
        axes = _numbers(dataset, "ImageOrientationPatient", 6)
        thickness = _numbers(dataset, "SpacingBetweenSlices", 1) or _numbers(dataset, "SliceThickness", 1)
        series = str(dataset.get("SeriesInstanceUID") or "")
        return Header(
            path, series, str(dataset.get("PatientID") or "").strip() or str(dataset.get("StudyInstanceUID") or "")
            or series, identifying_words(dataset),
            (int(dataset.Rows), int(dataset.Columns)), tuple(spacing) if spacing else None,
            np.array(position) if position else None, np.array(axes).reshape(2, 3) if axes else None,
            abs(thickness[0]) if thickness else None,
            tuple(str(dataset.get(key)) for key in ("RescaleSlope", "RescaleIntercept", "BitsAllocated", "BitsStored",
                                                    "PixelRepresentation", "PhotometricInterpretation"))
            + ("ModalityLUTSequence" in dataset,),
        )


def _check_kind(path: Path, dataset: pydicom.Dataset) -> None:
    if dataset.get("Modality") in NO_SCAN:
        raise ReadError(path, f"holds {dataset.Modality}, not a scan", LEAVE_OUT)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ReadError(path, "holds no image", LEAVE_OUT)
    if not 0 < int(dataset.Rows) * int(dataset.Columns) <= MAX_PIXELS:
        raise ReadError(path, f"has {dataset.Rows}x{dataset.Columns} pixels, expected 1 to {MAX_PIXELS}", LEAVE_OUT)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ReadError(path, f"has {frames} frames, expected one", "Convert it to one file per slice or to NIfTI")
    colour = str(dataset.get("PhotometricInterpretation"))
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
        raise ReadError(path, f"is a colour image ({colour}), expected grey values", LEAVE_OUT)


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int) -> list[float] | None:
    """The header's `count` finite numbers under a keyword; None where it is absent or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    numbers = [float(number) for number in (value if count > 1 else [value])]
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def read_pixels(path: Path) -> tuple[np.ndarray, float, float]:
    """Stored values (R,C), slope and intercept to the file's units; MONOCHROME1 is inverted, so that more is brighter.

    Raises ReadError for missing, truncated or undecodable pixels.
    """
    with refusing(path, f"Get the file again. {LEAVE_OUT}"):
        with BoundedFile(path) as file:
            dataset = pydicom.dcmread(file)
        _check_kind(path, dataset)  # before the decoder allocates
        pixels = dataset.pixel_array  # (R,C)
        if pixels.shape != (dataset.Rows, dataset.Columns):
            raise ReadError(path, f"has pixels of shape {pixels.shape}, its header says {dataset.Rows}x"
                            f"{dataset.Columns}", LEAVE_OUT)
        surplus = b"" if dataset.file_meta.TransferSyntaxUID.is_compressed else (
            dataset.get("PixelData", b"")[pixels.size * int(dataset.BitsAllocated) // 8:])
        if surplus.count(0) < len(surplus) and len(surplus) > 1:  # zeros, or one byte to an even length, are padding
            raise ReadError(path, f"holds {len(surplus)} bytes more than its {dataset.Rows}x{dataset.Columns} pixels",
                            f"The header is damaged. {LEAVE_OUT}")
        slope, intercept = 1.0, 0.0
        if "ModalityLUTSequence" in dataset:
            pixels = apply_modality_lut(pixels, dataset).astype(np.float32)
        else:
            slope = (_numbers(dataset, "RescaleSlope", 1) or [1.0])[0]
            intercept = (_numbers(dataset, "RescaleIntercept", 1) or [0.0])[0]
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            brightest = 2 ** int(dataset.BitsStored) - 1 if int(dataset.get("PixelRepresentation") or 0) == 0 else -1
            pixels = brightest - pixels.astype(np.int32)
        return pixels, slope, intercept


def read_dicom_image(path: Path) -> tuple[Volume, Header]:
    """One DICOM image (mammogram, X-ray, a single slice) as it is displayed, and its header."""
    header = read_header(path)
    pixels, slope, intercept = read_pixels(path)
    return Volume(pixels[None], slope, intercept, Geometry.of_image(*pixels.shape)), header  # (1,R,C)


def read_dicom_series(paths: Sequence[Path]) -> tuple[Volume, Header]:
    """The files of one series as a volume, sorted along the slices' normal, and the lowest file's header.

    Raises ReadError for several series, orientations, sizes or spacings among the files, for slices that are missing,
    doubled or unevenly spaced, and for headers without position, orientation or spacing.
    """
    headers = sorted((read_header(path) for path in paths), key=lambda header: header.path)
    _check_one_series(headers)
    headers, step = _sort_along_normal(headers)
    geometry = _series_geometry(headers, step)
    columns, rows, count = geometry.shape
    # Scaled slice by slice (usual in MR and PET), the volume holds scaled values; else the numbers stay as stored.
    uniform = len({header.coding for header in headers}) == 1
    stored = None
    for k, header in enumerate(headers):
        pixels, slope, intercept = read_pixels(header.path)  # (R,C)
        if not uniform:
            pixels, slope, intercept = pixels.astype(np.float32) * slope + intercept, 1.0, 0.0
        if stored is None:
            stored = np.empty((count, rows, columns), pixels.dtype if uniform else np.float32)
        stored[k] = pixels
    # (K,R,C) -> (C,R,K): the axes in the affine's order, as NIfTI converters write them.
    return Volume(to_slices(stored.transpose(2, 1, 0), geometry), slope, intercept, geometry), headers[0]


def _check_one_series(headers: Sequence[Header]) -> None:
    first = headers[0]
    for header in headers:
        for keyword, value in (("PixelSpacing", header.spacing_mm), ("ImageOrientationPatient", header.axes),
                               ("ImagePositionPatient", header.position)):
            if value is None:
                raise ReadError(header.path, f"has no {keyword}", f"A volume can't be built from it. {LEAVE_OUT}")
        if not np.allclose(header.axes @ header.axes.T, np.eye(2), atol=1e-3):
            raise ReadError(header.path, "ImageOrientationPatient is no pair of perpendicular unit vectors", LEAVE_OUT)
        for what, same in (
            ("series", header.series == first.series),
            ("sizes", header.shape == first.shape),
            ("orientations", np.allclose(header.axes, first.axes, atol=1e-3)),
            ("pixel spacings", np.allclose(header.spacing_mm, first.spacing_mm, rtol=1e-3)),
        ):
            if not same:
                raise ReadError(header.path, f"{len(headers)} files are of several {what}: this one differs from "
                                f"{first.path.name}", "Give each series a folder of its own")


def _sort_along_normal(headers: Sequence[Header]) -> tuple[list[Header], np.ndarray]:
    """Headers from the first slice to the last along the normal, and the step (3,) LPS mm from one to the next."""
    normal = np.cross(*headers[0].axes)
    ordered = sorted(headers, key=lambda header: float(header.position @ normal))
    if len(ordered) == 1:
        if not ordered[0].thickness_mm:
            raise ReadError(ordered[0].path, "is a single slice without SliceThickness", LEAVE_OUT)
        return ordered, normal * ordered[0].thickness_mm
    positions = np.array([header.position for header in ordered])  # (K,3)
    gaps = np.diff(positions @ normal)  # (K-1,)
    usual = float(np.median(gaps))
    for k, gap in enumerate(gaps):
        after = ordered[k].path
        if gap < 1e-3:
            raise ReadError(ordered[k + 1].path, f"lies at the same position as {after.name}",
                            "Keep one phase or repetition of the series in the folder")
        if abs(gap - usual) > POSITION_TOLERANCE * usual:
            raise ReadError(after, f"gap in the series: {gap:.3f} mm to the next slice, elsewhere {usual:.3f} mm "
                            f"({len(ordered)} files)", "Get the missing slices, or resample the series evenly")
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(ordered))[:, None] * step), axis=1)  # (K,)
    if off.max() > POSITION_TOLERANCE * usual:
        raise ReadError(ordered[int(off.argmax())].path, f"lies {off.max():.3f} mm off the series' line of slices",
                        "Resample the series evenly")
    return ordered, step


def _series_geometry(headers: Sequence[Header], step: np.ndarray) -> Geometry:
    """Grid (columns, rows, slices) with its RAS affine (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1)."""
    first = headers[0]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing_mm[1]  # along a row: from column to column
    affine[:3, 1] = first.axes[1] * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    try:
        return Geometry.of_volume((first.shape[1], first.shape[0], len(headers)), LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise ReadError(first.path, str(error), LEAVE_OUT) from None

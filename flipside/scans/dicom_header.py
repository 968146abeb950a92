"""DICOM headers: what is needed of a frame before its pixels, and which files hold no scan at all.

A file with one image has one header; a multi-frame file has one for each frame, with what stands in the frame's own
functional groups, else in the shared ones, else in the file (PS3.3 C.7.6.16).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from flipside.scans.geometry import SIDE_MM, plausible_sides
from flipside.scans.privacy import identifying_words
from flipside.scans.readers import ReadError, refusing

NO_SCAN = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTIMAGE", "SR", "PR", "KO", "ECG", "DOC", "REG", "FID",
           "RWV", "HD", "AU", "PLAN", "SMR"}
LOCALIZERS = re.compile(r"LOCALI[ZS]ER|SCOUT|TOPOGRAM|SURVIEW|SCANOGRAM")  # in a value of ImageType
SCREENS = re.compile(r"SCREEN|\bDOSE|REPORT|\bPROT\b")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds, .1 to .4
PROJECTIONS = {"CR", "DX", "MG", "PX", "IO", "XA", "RF", "US", "IVUS", "XC", "OP", "ES", "GM", "SM"}
QUANTITIES = {"CT", "PT"}  # their values mean the same however they are displayed
MAX_PIXELS = 1 << 28  # of one image; the largest mammograms have a tenth
LEAVE_OUT = "Leave it out with extract.on_error: skip, or move it away"
# What may tell apart the volumes of one series; see dicom_grouping.py.
SEPARATORS = {
    "acquisition": ("FrameAcquisitionNumber", "AcquisitionNumber"), "stack": ("StackID",),
    "echo": ("EchoNumbers", "EffectiveEchoTime", "EchoTime"),
    "temporal position": ("TemporalPositionIndex", "TemporalPositionIdentifier"), "energy": ("KVP",),
    "b-value": ("DiffusionBValue",), "image type": ("FrameType", "ImageType"), "kernel": ("ConvolutionKernel",),
    "trigger time": ("TriggerTime", "NominalCardiacTriggerDelayTime"),
}


class NoScanError(ReadError):
    """A file that is well formed and yet no scan: a localizer, a report, a directory."""


@dataclass(frozen=True)
class Header:
    """What is needed of a frame before its pixels."""

    path: Path
    frame: int  # in its file, from 0
    frames: int  # in its file
    instance: str  # SOPInstanceUID
    series: str  # SeriesInstanceUID
    patient: str  # PatientID; without one, the UID of the study or series; may be empty
    names: tuple[str, ...]  # identifying words
    shape: tuple[int, int]  # rows, columns
    spacing_mm: tuple[float, float] | None  # rows, columns
    position: np.ndarray | None  # (3,) LPS mm of the first pixel's centre
    axes: np.ndarray | None  # (2,3) LPS unit vectors along a row and down a column
    thickness_mm: float | None  # distance to the next slice as the header states it
    slope: float | None  # RescaleSlope and RescaleIntercept; None where the header has none
    intercept: float | None
    has_lut: bool  # ModalityLUTSequence, in place of slope and intercept
    padding: tuple[int, int] | None  # lowest and highest stored value that stand for "no image here"
    brightest: int | None  # highest stored value where low values are displayed bright, else None
    coding: tuple[str, ...]  # bits and sign
    separators: tuple[str, ...]  # values for SEPARATORS, "" where there is none
    no_volume: str  # why it is no part of a volume: "is a localizer …"; "" for others


class BoundedFile(io.BufferedReader):
    """A file for pydicom, which allocates what a damaged length asks for: never more here than the file holds."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(str(path)))  # pydicom puts its name into messages
        self.size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.size if size is None or size < 0 else min(size, self.size))


def words_in_header(path: Path) -> tuple[str, ...]:
    """Identifying words of any file, for messages about one that can't be read; () where nothing can be found."""
    try:
        with warnings.catch_warnings(), BoundedFile(path) as file:
            warnings.simplefilter("ignore")
            return identifying_words(pydicom.dcmread(file, stop_before_pixels=True, force=True))
    except Exception:  # whatever a damaged header makes the parser raise
        return ()


def read_header(path: Path) -> Header:
    """Header of a grey DICOM image. Raises ReadError for anything else, also for several frames."""
    headers = read_headers(path)
    if len(headers) > 1:
        raise ReadError(path, f"has {len(headers)} frames, expected one image",
                        "Read it as a volume, or convert it to one file per image")
    return headers[0]


def read_headers(path: Path) -> list[Header]:
    """Headers of a file's grey frames, in the file's order. Raises ReadError, NoScanError where there is no image."""
    with refusing(path, LEAVE_OUT):
        try:
            with BoundedFile(path) as file:
                dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            raise ReadError(path, "is not a DICOM file (it doesn't begin as one)", LEAVE_OUT) from None
        count = check_kind(path, dataset)
        patient, names = _patient(dataset), identifying_words(dataset)
        headers = [_frame_header(path, dataset, sources, frame, count, patient, names)
                   for frame, sources in enumerate(_sources(path, dataset, count))]
        return headers if count == 1 or headers[0].position is None or "PerFrameFunctionalGroupsSequence" in dataset \
            else _along_normal(path, dataset, headers)


def check_kind(path: Path, dataset: pydicom.Dataset) -> int:
    """Number of grey frames. Raises ReadError, NoScanError where the file is something else."""
    if dataset.get("Modality") in NO_SCAN:
        raise NoScanError(path, f"holds {dataset.Modality}, not a scan", LEAVE_OUT)
    if "Rows" not in dataset or "Columns" not in dataset:
        kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")).name
        if not kind or "Image" in kind:  # cut off, or without its pixels
            raise ReadError(path, f"holds no image, though it says {kind or 'nothing else'}",
                            f"Get the file again. {LEAVE_OUT}")
        raise NoScanError(path, f"holds no image ({kind})", LEAVE_OUT)
    if not 0 < int(dataset.Rows) * int(dataset.Columns) <= MAX_PIXELS:
        raise ReadError(path, f"has {dataset.Rows}x{dataset.Columns} pixels, expected 1 to {MAX_PIXELS}", LEAVE_OUT)
    colour = str(dataset.get("PhotometricInterpretation"))
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
        raise NoScanError(path, f"is a colour image ({colour}), expected grey values", LEAVE_OUT)
    return int(dataset.get("NumberOfFrames") or 1)


def _patient(dataset: pydicom.Dataset) -> str:
    return (str(dataset.get("PatientID") or "").strip() or str(dataset.get("StudyInstanceUID") or "")
            or str(dataset.get("SeriesInstanceUID") or ""))


def _sources(path: Path, dataset: pydicom.Dataset, count: int) -> list[list[pydicom.Dataset]]:
    """For each frame, where its attributes may stand, the most special place first."""
    shared, own = (dataset.get(f"{kind}FunctionalGroupsSequence") or [] for kind in ("Shared", "PerFrame"))
    if own and len(own) != count:
        raise ReadError(path, f"has {count} frames, but functional groups for {len(own)}", LEAVE_OUT)
    common = [*(group for item in shared for group in _groups(item)), dataset]
    return [[*_groups(item), *common] for item in own] if own else [common] * count


def _groups(item: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The functional groups of a frame: each a sequence of one item."""
    return [element.value[0] for element in item if element.VR == "SQ" and len(element.value) == 1]


def _first(sources: Sequence[pydicom.Dataset], *keywords: str) -> Any:
    """The first value that is not empty under one of the keywords; None where there is none."""
    for keyword in keywords:
        for source in sources:
            value = source.get(keyword)
            if value is not None and value != "":
                return value
    return None


def _numbers(sources: Sequence[pydicom.Dataset], count: int, *keywords: str) -> list[float] | None:
    """The `count` finite numbers under the first keyword that has them; None where none has."""
    for keyword in keywords:
        value = _first(sources, keyword)
        if value is not None:
            numbers = [float(number) for number in (value if count > 1 else [value])]
            if len(numbers) == count and np.isfinite(numbers).all():
                return numbers
    return None


def _frame_header(path: Path, dataset: pydicom.Dataset, sources: Sequence[pydicom.Dataset], frame: int, count: int,
                  patient: str, names: tuple[str, ...]) -> Header:
    spacing = _numbers(sources, 2, "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    if spacing and not plausible_sides(spacing):
        raise ReadError(path, f"has the pixel spacing {spacing}, expected {SIDE_MM[0]} to {SIDE_MM[1]} mm", LEAVE_OUT)
    aspect = _numbers([dataset], 2, "PixelAspectRatio")  # height and width; only where there is no spacing
    if not spacing and aspect and aspect[0] != aspect[1]:
        raise ReadError(path, f"has pixels of {aspect[0]:g} to {aspect[1]:g} (PixelAspectRatio) and no PixelSpacing",
                        f"Resample it to square pixels. {LEAVE_OUT}")
    position = _numbers(sources, 3, "ImagePositionPatient")
    axes = _numbers(sources, 6, "ImageOrientationPatient")
    thickness = _numbers(sources, 1, "SpacingBetweenSlices", "SliceThickness")
    slope, intercept = (_numbers(sources, 1, f"Rescale{name}") for name in ("Slope", "Intercept"))
    has_lut = "ModalityLUTSequence" in dataset
    if not has_lut and (slope is None) != (intercept is None):
        raise ReadError(path, f"has Rescale{'Slope' if slope else 'Intercept'} without "
                        f"Rescale{'Intercept' if slope else 'Slope'}", f"The header is damaged. {LEAVE_OUT}")
    quantity = _first([dataset], "Modality") in QUANTITIES or str(_first(sources, "RescaleType") or "")[:2] == "HU"
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1" and not quantity
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    brightest = (-1 if signed else 2 ** int(dataset.BitsStored) - 1) if inverted else None
    return Header(
        path, frame, count, str(dataset.get("SOPInstanceUID") or ""), str(dataset.get("SeriesInstanceUID") or ""),
        patient, names, (int(dataset.Rows), int(dataset.Columns)), (spacing[0], spacing[1]) if spacing else None,
        np.array(position) if position else None, np.array(axes).reshape(2, 3) if axes else None,
        abs(thickness[0]) if thickness else None, slope[0] if slope else None, intercept[0] if intercept else None,
        has_lut, _padding(dataset, signed), brightest,
        tuple(str(dataset.get(key)) for key in ("BitsAllocated", "BitsStored", "PixelRepresentation")),
        tuple(str(_first(sources, *keywords) or "") for keywords in SEPARATORS.values()),
        _no_volume(dataset, sources, position is not None),
    )


def _padding(dataset: pydicom.Dataset, signed: bool) -> tuple[int, int] | None:
    """Stored values that are padding (PS3.3 C.7.5.1.1.2), by the sign of the pixels: the header's may be another."""
    first = dataset.get("PixelPaddingValue")
    if first is None or first == "":
        return None
    size = 1 << int(dataset.BitsAllocated)
    last = dataset.get("PixelPaddingRangeLimit")
    ends = [int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
            for value in (first, first if last is None or last == "" else last)]
    ends = [(end + size // 2) % size - size // 2 if signed else end % size for end in ends]
    return min(ends), max(ends)


def _no_volume(dataset: pydicom.Dataset, sources: Sequence[pydicom.Dataset], has_position: bool) -> str:
    """Why an image is no part of a volume by what it is; "" where nothing speaks against it."""
    kinds = [str(value).upper() for keyword in ("FrameType", "ImageType") for source in sources
             for value in _values(source.get(keyword))]
    for kind in kinds:
        if LOCALIZERS.search(kind):
            return f"is a localizer (ImageType {kind})"
        if SCREENS.search(kind):
            return f"is a screenshot or report, not a scan (ImageType {kind})"
        if kind == "MOSAIC":
            return "is a mosaic of many slices in one image (Siemens)"
    if str(dataset.get("SOPClassUID") or "").startswith(SECONDARY_CAPTURE) and not has_position:
        return "is a secondary capture without a position"
    if dataset.get("Modality") in PROJECTIONS and not has_position:
        return f"is no slice of a volume but an image of its own ({dataset.Modality})"
    return ""


def _values(value: Any) -> Sequence[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _along_normal(path: Path, dataset: pydicom.Dataset, headers: list[Header]) -> list[Header]:
    """Frames of a file without functional groups, with the places that it states for them: offsets of each, or one
    distance between slices. Frames over time have neither."""
    first = headers[0]
    offsets = _numbers([dataset], len(headers), "GridFrameOffsetVector")
    step = _numbers([dataset], 1, "SpacingBetweenSlices")
    times = {"FrameTime", "FrameTimeVector"} & {
        pydicom.datadict.keyword_for_tag(tag) for tag in np.atleast_1d(dataset.get("FrameIncrementPointer") or [])}
    if first.axes is None or first.position is None or times or (offsets is None and step is None):
        return [replace(header, position=None) for header in headers]
    along = np.array(offsets) - offsets[0] if offsets else np.arange(len(headers)) * (step or [0.0])[0]
    normal = np.cross(first.axes[0], first.axes[1])
    return [replace(header, position=first.position + normal * distance)
            for header, distance in zip(headers, along, strict=True)]

"""DICOM: one series as a volume with a RAS affine, or one image.

Positions and orientations follow DICOM PS3.3 C.7.6.2 (image plane); DICOM counts millimetres towards the patient's
left, back and head (LPS), NIfTI towards right, front and head (RAS).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut

from flipside.scans.geometry import SIDE_MM, Geometry, GeometryError, plausible_sides, to_slices
from flipside.scans.privacy import identifying_words
from flipside.scans.readers import ReadError, Volume, refusing

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
POSITION_TOLERANCE = 0.25  # of the slice step; scanners round positions, a missing slice moves the rest by a whole step
NO_SCAN = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "ECG"}
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


@dataclass(frozen=True)
class PlacedHeader:
    """A header with all that places its slice in the scanner; see Header."""

    header: Header
    spacing_mm: tuple[float, float]
    position: np.ndarray  # (3,)
    axes: np.ndarray  # (2,3)

    @property
    def path(self) -> Path:
        return self.header.path


class BoundedFile(io.BufferedReader):
    """A file for pydicom, which allocates what a damaged length asks for: never more here than the file holds."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))
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
            (int(dataset.Rows), int(dataset.Columns)), (spacing[0], spacing[1]) if spacing else None,
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
    placed, step = _sort_along_normal(_one_series(headers))
    geometry = _series_geometry(placed, step)
    # Scaled slice by slice (usual in MR and PET), the volume holds scaled values; else the numbers stay as stored.
    uniform = len({header.coding for header in headers}) == 1
    planes = (_plane(one.path, uniform) for one in placed)
    first, slope, intercept = next(planes)  # (R,C)
    stored = np.empty((len(placed), *first.shape), first.dtype)  # (K,R,C)
    stored[0] = first
    for k, (pixels, _, _) in enumerate(planes, start=1):
        stored[k] = pixels
    # (K,R,C) -> (C,R,K): the axes in the affine's order, as NIfTI converters write them.
    return Volume(to_slices(stored.transpose(2, 1, 0), geometry), slope, intercept, geometry), placed[0].header


def _plane(path: Path, uniform: bool) -> tuple[np.ndarray, float, float]:
    """One slice of a series as `read_pixels` gives it; where the slices are not coded alike, scaled, float32."""
    pixels, slope, intercept = read_pixels(path)  # (R,C)
    return (pixels, slope, intercept) if uniform else (pixels.astype(np.float32) * slope + intercept, 1.0, 0.0)


def _one_series(headers: Sequence[Header]) -> list[PlacedHeader]:
    """The headers with their places. Raises ReadError where one has none, or is not of the first one's series."""
    found: list[PlacedHeader] = []
    for header in headers:
        found.append(_placed(header))
        first, this = found[0], found[-1]
        if not np.allclose(this.axes @ this.axes.T, np.eye(2), atol=1e-3):
            raise ReadError(this.path, "ImageOrientationPatient is no pair of perpendicular unit vectors", LEAVE_OUT)
        for what, same in (
            ("series", header.series == first.header.series),
            ("sizes", header.shape == first.header.shape),
            ("orientations", np.allclose(this.axes, first.axes, atol=1e-3)),
            ("pixel spacings", np.allclose(this.spacing_mm, first.spacing_mm, rtol=1e-3)),
        ):
            if not same:
                raise ReadError(this.path, f"{len(headers)} files are of several {what}: this one differs from "
                                f"{first.path.name}", "Give each series a folder of its own")
    return found


def _placed(header: Header) -> PlacedHeader:
    """Raises ReadError, with the keyword, for a header that doesn't place its slice."""
    missing = ("PixelSpacing" if header.spacing_mm is None else
               "ImageOrientationPatient" if header.axes is None else "ImagePositionPatient")
    if header.spacing_mm is None or header.axes is None or header.position is None:
        raise ReadError(header.path, f"has no {missing}", f"A volume can't be built from it. {LEAVE_OUT}")
    return PlacedHeader(header, header.spacing_mm, header.position, header.axes)


def _sort_along_normal(headers: Sequence[PlacedHeader]) -> tuple[list[PlacedHeader], np.ndarray]:
    """Headers from the first slice to the last along the normal, and the step (3,) LPS mm from one to the next."""
    normal = np.cross(headers[0].axes[0], headers[0].axes[1])
    ordered = sorted(headers, key=lambda placed: float(placed.position @ normal))
    if len(ordered) == 1:
        thickness = ordered[0].header.thickness_mm
        if not thickness:
            raise ReadError(ordered[0].path, "is a single slice without SliceThickness", LEAVE_OUT)
        return ordered, normal * thickness
    positions = np.array([placed.position for placed in ordered])  # (K,3)
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


def _series_geometry(headers: Sequence[PlacedHeader], step: np.ndarray) -> Geometry:
    """Grid (columns, rows, slices) with its RAS affine (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1)."""
    first = headers[0]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing_mm[1]  # along a row: from column to column
    affine[:3, 1] = first.axes[1] * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    try:
        return Geometry.of_volume((first.header.shape[1], first.header.shape[0], len(headers)), LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise ReadError(first.path, str(error), LEAVE_OUT) from None


def read_dicom_volume(path: Path) -> tuple[Volume, Header]:
    """A folder with one series, or a file with one image, with its (first) header.

    Raises ReadError for a folder that holds no series or several, and for files as the readers above do.
    """
    if not path.is_dir():
        return read_dicom_image(path)
    files = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")
             and file.name.upper() != "DICOMDIR"]
    if not files:
        raise ReadError(path, "holds no file", "Name the folder that holds the series' files")
    return read_dicom_series(files)

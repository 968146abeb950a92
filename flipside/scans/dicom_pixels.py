"""DICOM pixels: decoded, scaled, with padding as the darkest value and MONOCHROME1 turned where it is for display."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import parse_fragments
from pydicom.pixels import apply_modality_lut

from flipside.scans.dicom_header import LEAVE_OUT, BoundedFile, Header, check_kind
from flipside.scans.readers import ReadError, refusing

DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"  # closes compressed pixels


def read_planes(headers: Sequence[Header]) -> tuple[np.ndarray, float, float]:
    """Values (K,R,C) of the frames in the order of their headers, slope and intercept to the scan's units.

    Where all are coded alike the numbers stay as stored; scaled frame by frame (usual in MR and PET) they are float32
    in the scan's units. Padding takes the darkest value of all frames that is none; MONOCHROME1 is inverted, so that
    more is brighter, but for quantities such as HU. Raises ReadError for missing, truncated or undecodable pixels,
    for frames that lack the others' rescaling, and where everything is padding.
    """
    first = headers[0]
    _check_rescaling(headers)
    uniform = not first.has_lut and len({_coding(header) for header in headers}) == 1
    slope, intercept = (first.slope, first.intercept) if uniform and first.slope is not None else (1.0, 0.0)
    planes: np.ndarray = np.empty(0)
    for path, members in groupby(sorted(enumerate(headers), key=lambda each: (each[1].path, each[1].frame)),
                                 lambda each: each[1].path):
        stored, dataset = _decode(path)  # (F,R,C)
        for k, header in members:
            plane = stored[header.frame] if uniform else _scaled(stored[header.frame], header, dataset)
            if not planes.size:
                planes = np.empty((len(headers), *plane.shape), plane.dtype)
            planes[k] = plane
    if any(header.padding for header in headers):
        _darken_padding(planes, first, uniform, slope)
    if uniform and first.brightest is not None:
        planes = first.brightest - planes.astype(np.int32)
    return planes, slope, intercept or 0.0


def _check_rescaling(headers: Sequence[Header]) -> None:
    """Raises ReadError where some frames are rescaled and others are not: theirs would be in other units."""
    scaled = [header.has_lut or header.slope is not None for header in headers]
    if any(scaled) and not all(scaled):
        bare = headers[scaled.index(False)]
        raise ReadError(bare.path, f"has no RescaleSlope and RescaleIntercept, unlike {sum(scaled)} of the volume's "
                        f"{len(headers)} slices", f"Its values would be in other units. {LEAVE_OUT}")


def _coding(header: Header) -> tuple:
    """Equal where stored values mean the same."""
    return (header.slope, header.intercept, header.has_lut, header.padding, header.brightest, header.coding)


def _scaled(stored: np.ndarray, header: Header, dataset: pydicom.Dataset) -> np.ndarray:
    """One frame (R,C) float32 in its own units, MONOCHROME1 inverted, padding NaN."""
    values = stored
    if header.has_lut:
        values = apply_modality_lut(stored, dataset)
    if header.brightest is not None:
        values = header.brightest - (values if header.has_lut else values.astype(np.int32))
    scaled = values.astype(np.float32)
    if not header.has_lut:
        slope = 1.0 if header.slope is None else header.slope
        scaled = scaled * np.float32(slope) + np.float32(header.intercept or 0.0)
    if header.padding:
        scaled[_is_padding(stored, header.padding)] = np.nan
    return scaled


def _is_padding(stored: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    return (stored >= padding[0]) & (stored <= padding[1])


def _darken_padding(planes: np.ndarray, first: Header, uniform: bool, slope: float) -> None:
    """Set padding to the darkest value that is none, in place; (K,R,C) stored values, or scaled ones with NaN."""
    def hidden(plane: np.ndarray) -> np.ndarray:
        return _is_padding(plane, first.padding) if uniform and first.padding else np.isnan(plane)

    shown = [plane[~hidden(plane)] for plane in planes]
    low_is_dark = not uniform or (slope >= 0) == (first.brightest is None)
    darkest = [values.min() if low_is_dark else values.max() for values in shown if values.size]
    if not darkest:
        raise ReadError(first.path, f"holds nothing but padding (PixelPaddingValue {first.padding})", LEAVE_OUT)
    for plane in planes:
        plane[hidden(plane)] = min(darkest) if low_is_dark else max(darkest)


def _decode(path: Path) -> tuple[np.ndarray, pydicom.Dataset]:
    """Stored values (F,R,C) of a file as they are, and its dataset. Raises ReadError."""
    with refusing(path, f"Get the file again. {LEAVE_OUT}"):
        dataset = _read_whole(path)
        frames = check_kind(path, dataset)  # before the decoder allocates
        packed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
        if packed and frames > parse_fragments(dataset.get("PixelData", b""))[0]:
            raise ReadError(path, f"says {frames} frames, more than it holds", f"The file is cut off. {LEAVE_OUT}")
        shape = (frames, int(dataset.Rows), int(dataset.Columns))
        pixels = dataset.pixel_array  # (R,C) or (F,R,C)
        if pixels.shape != (shape if frames > 1 else shape[1:]):
            raise ReadError(path, f"has pixels of shape {pixels.shape}, its header says {shape}", LEAVE_OUT)
        surplus = b"" if packed else dataset.get("PixelData", b"")[pixels.size * int(dataset.BitsAllocated) // 8:]
        if surplus.count(0) < len(surplus) and len(surplus) > 1:  # zeros, or one byte to an even length, are padding
            raise ReadError(path, f"holds {len(surplus)} bytes more than its {dataset.Rows}x{dataset.Columns} pixels",
                            f"The header is damaged. {LEAVE_OUT}")
        return pixels.reshape(shape), dataset


def _read_whole(path: Path) -> pydicom.Dataset:
    """A file with its pixels; compressed ones that end with the file, without their closing mark, get it here."""
    with warnings.catch_warnings(), BoundedFile(path) as file:
        warnings.filterwarnings("ignore", "End of file reached before delimiter")
        dataset = pydicom.dcmread(file)
    if "PixelData" in dataset or not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return dataset
    closed = pydicom.dcmread(io.BytesIO(path.read_bytes() + DELIMITER))
    content, at = closed.get("PixelData", b""), 0
    while at + 8 <= len(content):
        at += 8 + struct.unpack("<I", content[at + 4:at + 8])[0]
    if not content or at != len(content):
        raise ReadError(path, "ends in the middle of its compressed pixels", f"Get the file again. {LEAVE_OUT}")
    return closed

"""Image and label files of every kind as slices (Z, rows, columns); what can't be read right is refused by name.

NIfTI volumes stay in the numbers in which they are stored until a slice is asked for: a scan is decoded once and never
turned into floating point as a whole. DICOM has a file of its own, dicom.py.
"""

from __future__ import annotations

import contextlib
import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from PIL import Image

from flipside.scans.geometry import Geometry, GeometryError, from_slices, grids_agree, to_slices
from flipside.scans.pixels import gather

DEFLATE_LIMIT = 1032  # deflate never packs tighter (zlib's documentation)
CHUNK = 1 << 24  # bytes decompressed at once

Colour = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # lowest and highest R, G and B, both included


class ReadError(ValueError):
    """A file that can't be read right: which one, why, and what the user can do."""

    def __init__(self, file: Path | str, reason: str, remedy: str):
        super().__init__(f"{file}: {reason}. {remedy}")
        self.file, self.reason, self.remedy = str(file), reason, remedy


@dataclass(frozen=True, eq=False)
class Volume:
    """Slices of one scan or image: a view of the stored numbers, and how they become the scan's units."""

    stored: np.ndarray  # (Z,R,C)
    slope: float
    intercept: float
    geometry: Geometry

    def slice(self, z: int) -> np.ndarray:
        """(R,C) float32 of slice z in the scan's own units (HU for CT)."""
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, and refused by who keeps it
            values = self.stored[z].astype(np.float32)  # (R,C)
            if (self.slope, self.intercept) != (1.0, 0.0):
                values = values * np.float32(self.slope) + np.float32(self.intercept)
        return values


@contextlib.contextmanager
def refusing(file: Path | str, remedy: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file becomes a ReadError.

    The decoders behind nibabel, Pillow and pydicom raise far too many types to list; a ReadError passes through.
    """
    try:
        yield
    except (ReadError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic in a decoder written in Rust (pylibjpeg-rle) is no Exception
        text = " ".join(str(error).split())[:300]
        raise ReadError(file, f"can't be decoded ({type(error).__name__}: {text})", remedy) from None


def read_nifti(path: Path) -> Volume:
    """A three-dimensional NIfTI-1 or NIfTI-2 file.

    Raises ReadError for another format, a header without its data, data that are fewer or more than the header says,
    a wrong checksum (.gz), four dimensions, colour or complex voxels, and a header that doesn't say where the patient's
    right is.
    """
    remedy = "Get the file again, or leave it out with extract.on_error: skip"
    with refusing(path, remedy):
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair):  # NIfTI-2 and single files derive from it
            raise ReadError(path, f"is {type(image).__name__}, not a NIfTI volume", "Convert it to .nii.gz")
        geometry = _nifti_geometry(path, image)
        stored = _voxels(path, image)
        stored = stored.reshape(geometry.shape, order="F")  # drops axes of length one
    if stored.dtype.kind not in "iuf":
        raise ReadError(path, f"holds {image.get_data_dtype()} voxels (colour or complex)", "Convert it to grey values")
    slices = gather(to_slices(stored, geometry))  # (Z,R,C)
    proxy = _proxy(image)
    return Volume(slices, float(proxy.slope), float(proxy.inter), geometry)


def _proxy(image: nib.Nifti1Pair) -> ArrayProxy:
    """The stored numbers of an image that was loaded from a file."""
    return cast(ArrayProxy, image.dataobj)


def _voxels(path: Path, image: nib.Nifti1Pair) -> np.ndarray:
    """All stored numbers in the file's order, flat; nothing is allocated that the file can't fill."""
    proxy, file = _proxy(image), Path(str(image.file_map["image"].filename))  # of a pair, the .img
    needed = math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize
    if file.suffix in (".bz2", ".zst"):
        raise ReadError(path, f"is packed as {file.suffix}", "Convert it to .nii.gz")
    packed, size = file.suffix == ".gz", file.stat().st_size
    if proxy.offset + needed > size * (DEFLATE_LIMIT if packed else 1):
        raise ReadError(path, f"can't be decoded: {size} bytes are too few for the voxels in its header, {proxy.shape} "
                        f"of {proxy.dtype}", "Get the file again, or leave it out with extract.on_error: skip")
    if not packed:
        with open(file, "rb") as stream:
            stream.seek(proxy.offset + needed)
            _refuse_surplus(path, stream)
        return proxy.get_unscaled().ravel(order="F")  # a view of the file
    with gzip.open(file) as stream:
        stream.seek(proxy.offset)
        flat = np.empty(needed, np.uint8)  # its pages cost nothing until they are filled
        filled = 0
        while filled < needed and (count := stream.readinto(flat[filled:filled + CHUNK].data)):
            filled += count
        if filled < needed:
            raise EOFError(f"expected {needed} bytes of voxels, found {filled}")
        _refuse_surplus(path, stream)  # to the end, where gzip compares the checksum
    return flat.view(proxy.dtype)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _refuse_surplus(path: Path, stream: _Readable) -> None:
    while rest := stream.read(CHUNK):
        if rest.count(0) < len(rest):  # zeros are padding
            raise ReadError(path, "holds more data than the voxels in its header", "The header is damaged: get the "
                            "file again, or save it with its full shape")


def _nifti_geometry(path: Path, image: nib.Nifti1Pair) -> Geometry:
    shape = image.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]) or min(shape) < 1:
        raise ReadError(path, f"has shape {shape}, expected three dimensions",
                        "Save the wanted volume as a file of its own")
    if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
        raise ReadError(path, "has no orientation (sform_code and qform_code are 0)",
                        "Set its sform to the scanner's orientation")
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise ReadError(path, f"measures in {unit}, expected mm", "Save it with an affine in mm")
    try:
        return Geometry.of_volume(shape[:3], image.affine)
    except GeometryError as error:
        raise ReadError(path, str(error), "Set its sform to the scanner's orientation") from None


def read_nifti_labels(path: Path, geometry: Geometry, image_path: Path | str) -> np.ndarray:
    """Integer labels (Z,R,C) of a NIfTI file that lies on the image's grid, in whatever orientation it is stored.

    Raises ReadError for labels on another grid, naming both shapes and affines, and for fractional labels.
    """
    labels = read_nifti(path)
    if not grids_agree(labels.geometry, geometry):
        raise ReadError(
            path, f"labels of shape {labels.geometry.shape} with affine {_short(labels.geometry.affine)} don't lie on "
            f"the grid of {image_path}, shape {geometry.shape} with affine {_short(geometry.affine)}",
            "Get the labels that belong to the image, or resample them onto its grid")
    turned = labels.geometry.turned_like(geometry)
    labels = replace(labels, stored=to_slices(from_slices(labels.stored, labels.geometry), turned), geometry=turned)
    if labels.stored.dtype.kind in "iu" and (labels.slope, labels.intercept) == (1.0, 0.0):
        return labels.stored
    whole = np.empty(labels.stored.shape, np.int16)  # (Z,R,C)
    for z in range(len(whole)):
        values = labels.slice(z)
        if not ((np.abs(values) < 2**15) & (np.abs(values - np.rint(values)) < 1e-3)).all():  # NaN neither
            raise ReadError(path, f"holds fractions or values beyond 16 bits (slice {z}), expected whole labels",
                            "Resample labels by nearest neighbour")
        whole[z] = np.rint(values)
    return whole


def _short(affine: np.ndarray | None) -> list | None:
    return None if affine is None else np.round(affine[:3], 4).tolist()


def read_image(path: Path) -> Volume:
    """A grey or colour picture (8 or 16 bit PNG, JPEG, TIFF …) as one slice; colour becomes luma (ITU-R BT.601).

    Raises ReadError for files that are no picture, damaged, with several frames, or partly transparent.
    """
    picture = _open_picture(path)
    with refusing(path, "Save it as a grey or RGB picture"):
        if picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA")
        if picture.mode in ("RGBA", "LA"):
            alpha = np.asarray(picture.getchannel("A"))
            if alpha.min() < 255:
                raise ReadError(path, "is partly transparent", "Save it without an alpha channel")
        if picture.mode not in ("L", "I", "F") and not picture.mode.startswith("I;16"):
            picture = picture.convert("L")
        values = np.asarray(picture)  # (R,C)
    return Volume(values[None], 1.0, 0.0, Geometry.of_image(*values.shape))  # (1,R,C)


def read_image_labels(path: Path, geometry: Geometry, image_path: Path | str, colours: Sequence[Colour] | None
                      ) -> np.ndarray:
    """Labels (1,R,C) of a mask picture on the image's grid: its grey values, or uint8 1 where a colour lies in one of
    the ranges. Raises ReadError for another size, and for a colour mask where grey values are expected."""
    picture = _open_picture(path)
    if (picture.height, picture.width) != geometry.shape:
        raise ReadError(path, f"mask of {picture.height}x{picture.width} pixels doesn't lie on the grid of "
                        f"{image_path}, {geometry.shape[0]}x{geometry.shape[1]}",
                        "Get the mask that belongs to the image, or bring both to one size")
    if colours is None:
        values = np.asarray(picture)  # (R,C) or (R,C,channels); a palette picture gives its indices
        if values.ndim == 3:
            if np.ptp(values[..., :3], axis=-1).any():
                raise ReadError(path, "is a colour mask, but `values` are grey", "Give the mask's `colours` instead")
            values = values[..., 0]
        return values[None].astype(np.uint8) if values.dtype == bool else values[None]
    with refusing(path, "Save the mask as an RGB picture"):
        values = np.asarray(picture.convert("RGB"))  # (R,C,3)
    hit = np.zeros(values.shape[:2], bool)
    for ranges in colours:
        low, high = np.array(ranges).T  # (3,)
        hit |= ((values >= low) & (values <= high)).all(axis=-1)
    return hit[None].astype(np.uint8)


def _open_picture(path: Path) -> Image.Image:
    with refusing(path, "Get the file again, or leave it out with extract.on_error: skip"), Image.open(path) as picture:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise ReadError(path, f"has {frames} frames, expected one", "Save each frame as its own file")
        if picture.format == "PNG":
            with Image.open(path) as unread:
                unread.verify()  # load() alone doesn't compare the checksums of the pixels
        picture.load()
        return picture.copy()

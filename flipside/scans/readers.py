"""NIfTI images and labels as slices (Z, rows, columns), and what all readers share; what can't be read right is refused
by name.

Volumes stay in the numbers in which they are stored until a slice is asked for: a scan is decoded once and never
turned into floating point as a whole. DICOM is read in dicom.py, pictures in pictures.py.
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

from flipside.scans.geometry import Geometry, GeometryError, from_slices, grids_agree, to_slices
from flipside.scans.nifti_header import contradiction
from flipside.scans.pixels import gather

DEFLATE_LIMIT = 1032  # deflate never packs tighter (zlib's documentation)
CHUNK = 1 << 24  # bytes decompressed at once


class ReadError(ValueError):
    """A file that can't be read right: which one, why, and what the user can do."""

    def __init__(self, file: Path | str, reason: str, remedy: str):
        super().__init__(f"{file}: {reason}. {remedy}")
        self.file, self.reason, self.remedy = str(file), reason, remedy

    def __reduce__(self) -> tuple:
        """So that one that a worker has raised reaches the stage."""
        return type(self), (self.file, self.reason, self.remedy)


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

    def cut_like(self, other: Geometry) -> Volume:
        """The volume, which lies on the grid of another scan, in the same slices as that one."""
        turned = self.geometry.turned_like(other)
        return replace(self, stored=to_slices(from_slices(self.stored, self.geometry), turned), geometry=turned)


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
    right is or contradicts itself.
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
    ending = file.suffix.lower()
    if ending in (".bz2", ".zst"):
        raise ReadError(path, f"is packed as {ending}", "Convert it to .nii.gz")
    packed, size = ending == ".gz", file.stat().st_size
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
        geometry = Geometry.of_volume(shape[:3], image.affine)
    except GeometryError as error:
        raise ReadError(path, str(error), "Set its sform to the scanner's orientation") from None
    against = contradiction(image)
    if against:
        raise ReadError(path, against, "Get the file again from its source, or set sform, qform and pixdim to what is "
                        "right")
    return geometry


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
    labels = labels.cut_like(geometry)
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


def read_registered(paths: Sequence[Path]) -> tuple[Volume, ...]:
    """Several NIfTI volumes on one grid, in whatever orientation each is stored, as the channels of a scan.

    Raises ReadError for a volume on another grid than the first, naming both.
    """
    volumes = [read_nifti(path) for path in paths]
    grid = volumes[0].geometry
    for path, volume in zip(paths, volumes, strict=True):
        if not grids_agree(volume.geometry, grid):
            raise ReadError(
                path, f"volume of shape {volume.geometry.shape} with affine {_short(volume.geometry.affine)} doesn't "
                f"lie on the grid of {paths[0]}, shape {grid.shape} with affine {_short(grid.affine)}",
                "Resample it onto the grid of the first: channels must be registered")
    return tuple(volume.cut_like(grid) for volume in volumes)


def _short(affine: np.ndarray | None) -> list | None:
    return None if affine is None else np.round(affine[:3], 4).tolist()

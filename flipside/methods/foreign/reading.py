"""Attribution maps and masks that were made elsewhere, from files to the grid of the slice store.

A scan's file goes the way that the scan went: the same orientation, plane, box and size (flipside/scans/geometry.py,
flipside/cohort/slicing.py). Attribution is interpolated bilinearly, as images are; masks by nearest neighbour, as the
truth is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import RootModel, field_validator

from flipside.core.params import Params
from flipside.core.progress import progress
from flipside.masks.placing import safe_name
from flipside.methods.base.maps import min_max_scale
from flipside.scans.endings import NIFTI
from flipside.scans.geometry import Geometry, grids_agree, slices_shape
from flipside.scans.picture_files import decode_picture
from flipside.scans.pixels import resize_bilinear, resize_nearest
from flipside.scans.readers import ReadError, read_nifti

PICTURES = (".png",)
SHOWN = 5  # names of files in a message

Values = Literal["any", "probability", "mask"]


class ForeignMapError(ValueError):
    """Files that don't fit the slices: missing ones, or names that stand for several scans."""


class ForeignMaps(Params):
    """Section `foreign_maps.<name>`: the maps or masks in data/foreign/<name>, which take part as the method <name>."""

    pattern: str
    """Name of each file in that folder. `{case}` is a scan's name, with one NIfTI file per volume or one PNG per
    picture; `{slice}` is a slice's name, with one PNG each. Both as `scan_id` and `slice_id` in data/slices/index.csv,
    with an underscore for each character but letters, digits, `_`, `.` and `-`."""
    values: Values
    """`any`: each slice's map is scaled from its least to its greatest value, as those of the methods that ask the
    classifier alone; `probability`: values in [0,1] that stay as they are (of a PNG the greatest sample, 255 or 65535,
    is 1); `mask`: 0 is no lesion, everything else is lesion."""

    @field_validator("pattern")
    @classmethod
    def _one_placeholder(cls, pattern: str) -> str:
        kinds = [kind for kind in ("case", "slice") if f"{{{kind}}}" in pattern]
        allowed = PICTURES if kinds == ["slice"] else (*NIFTI, *PICTURES)
        if len(kinds) != 1 or not pattern.lower().endswith(allowed):
            raise ValueError("expected a name with {case} that ends in .nii, .nii.gz or .png, or one with {slice} that "
                             "ends in .png")
        return pattern

    def file_of(self, scan_id: str, slice_id: str) -> str:
        """The file, below the method's folder, that a slice's map is in."""
        return self.pattern.replace("{case}", safe_name(scan_id)).replace("{slice}", safe_name(slice_id))


class ForeignMapsParams(RootModel[dict[str, ForeignMaps]]):
    """Section `foreign_maps`: a block for each method whose maps were made elsewhere."""

    @field_validator("root")
    @classmethod
    def _plain_names(cls, blocks: dict[str, ForeignMaps]) -> dict[str, ForeignMaps]:
        wrong = [name for name in blocks if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no name of a method: expected letters, digits and underscores")
        return blocks


def read_maps(folder: Path, params: ForeignMaps, index: pd.DataFrame, geometries: dict[str, Geometry],
              sides: tuple[int, int]) -> np.ndarray:
    """The maps (N,H,W) float16 in [0,1] of N slices on the store's grid.

    index: scan_id, slice_id, z and draw of the slices; geometries: the original grid of each scan; sides: H and W.
    Raises ForeignMapError where files are missing, naming them, or where one would stand for several scans or draws;
    ReadError for a file on another grid, in colour, with NaN, or with values that `values` rules out.
    """
    files = [params.file_of(*names) for names in zip(index["scan_id"], index["slice_id"], strict=True)]
    refuse_shared_files(files, index, params.pattern)
    refuse_missing_files(folder, list(dict.fromkeys(files)))
    maps = np.empty((len(index), *sides), np.float16)
    of_file = pd.Series(range(len(index))).groupby(pd.Series(files), sort=False)
    for file, rows in progress(of_file, f"read {folder.name}", total=len(of_file)):
        own = index.iloc[rows.to_numpy()]
        geometry = geometries[own["scan_id"].iloc[0]]
        read = read_volume if file.lower().endswith(NIFTI) else read_picture
        planes = read(folder / file, geometry, own["z"].tolist(), params, sides)
        for row, plane in zip(rows, planes, strict=True):
            refuse_values(folder / file, plane, params.values)
            maps[row] = on_store_grid(plane, geometry, sides, params.values)
    return maps


def refuse_shared_files(files: Sequence[str], index: pd.DataFrame, pattern: str) -> None:
    """Raises ForeignMapError where a file stands for two scans, or for two draws of a slice."""
    owners = index.assign(file=list(files)).groupby("file", sort=False)
    for file, own in owners:
        if own["scan_id"].nunique() > 1:
            raise ForeignMapError(f"{file} would be the file of the scans {' and '.join(own['scan_id'].unique()[:2])}: "
                                  "their names must differ in letters, digits, underscores, dots or dashes")
        if own["z"].duplicated().any():
            raise ForeignMapError(f"{file} would be the map of {own['slice_id'].iloc[0]} and of other draws of the "
                                  f"same slice: name one file per slice with {{slice}} instead of {pattern!r}")


def refuse_missing_files(folder: Path, files: Sequence[str]) -> None:
    """Raises ForeignMapError, naming the missing files and what is there instead."""
    if not folder.is_dir():
        raise ForeignMapError(f"{folder} not found: put the maps there, or link their folder (`ln -s`)")
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        others = [name for name in others if name not in set(files)]
        raise ForeignMapError(
            f"{folder} lacks {len(missing)} of {len(files)} files: {_listed(missing)}. All methods are compared on the "
            f"same slices: add them, or correct `pattern`. Other files there: {_listed(others) or 'none'}")


def read_volume(file: Path, geometry: Geometry, z: Sequence[int], params: ForeignMaps, sides: tuple[int, int]
                ) -> list[np.ndarray]:
    """The slices z of a NIfTI file, (R,C) float32 each, cut as the scan was. The file may be stored in another
    orientation than the scan, but must lie on its grid."""
    if geometry.is_image:
        raise ReadError(file, "is a volume, but its case is a single picture", "Save its map as PNG")
    volume = read_nifti(file)
    if not grids_agree(volume.geometry, geometry):
        raise ReadError(file, f"has shape {volume.geometry.shape} and affine {_rounded(volume.geometry)}, its scan "
                        f"has shape {geometry.shape} and affine {_rounded(geometry)}", "Resample the map onto the "
                        "scan's grid; data/segmentations has a file on each test scan's grid")
    volume = volume.cut_like(geometry)
    return [volume.slice(number) for number in z]


def read_picture(file: Path, geometry: Geometry, z: Sequence[int], params: ForeignMaps, sides: tuple[int, int]
                 ) -> list[np.ndarray]:
    """A PNG of one slice, shown as Flipside shows slices: (R,C) float32 of its native size, or (H,W) as it is in the
    store."""
    if not geometry.is_image and "{case}" in params.pattern:
        raise ReadError(file, f"is a picture, but its case is a volume of {slices_shape(geometry)[0]} slices",
                        "Save its maps as one NIfTI file, or name one PNG per slice with {slice}")
    samples = decode_picture(file).samples  # (R,C) or (R,C,3)
    if samples.ndim == 3:
        if (samples != samples[..., :1]).any():
            raise ReadError(file, "is in colour, and colours have no order", "Save the map's own values as grey")
        samples = samples[..., 0]
    native = slices_shape(geometry)[1:]
    if samples.shape not in (native, sides):
        raise ReadError(file, f"has {samples.shape[0]} x {samples.shape[1]} pixels, its slice has {native[0]} x "
                        f"{native[1]} ({sides[0]} x {sides[1]} in data/slices)", "Resize the map to one of these")
    greatest = np.iinfo(samples.dtype).max if params.values == "probability" else 1
    return [samples.astype(np.float32) / np.float32(greatest)]


def refuse_values(file: Path, plane: np.ndarray, values: Values) -> None:
    """Raises ReadError for NaN, infinite values, and probabilities beyond [0,1]."""
    if not np.isfinite(plane).all():
        raise ReadError(file, "holds NaN or infinite values", "Set them to a number, such as 0")
    if values == "probability" and (plane.min() < 0 or plane.max() > 1):
        raise ReadError(file, f"holds values from {plane.min():g} to {plane.max():g}, expected probabilities from 0 to "
                        "1", "Set `values` to any, or save probabilities")


def on_store_grid(plane: np.ndarray, geometry: Geometry, sides: tuple[int, int], values: Values) -> np.ndarray:
    """A map (R,C) on the slice's native grid as (H,W) float32 in [0,1] at the store's size, around it the slice's least
    value (0 in the end). One of the store's size but not the native one stays where it is."""
    if plane.shape != slices_shape(geometry)[1:]:
        placed = plane
    else:
        box = geometry.content_box(sides)
        height, width = (side.stop - side.start for side in box)
        placed = np.full(sides, 0 if values != "any" else plane.min(), np.float32)
        placed[box] = (resize_nearest if values == "mask" else resize_bilinear)(plane, height, width)
    if values == "mask":
        return (placed != 0).astype(np.float32)
    if values == "any":
        return min_max_scale(torch.from_numpy(placed)).numpy()
    return placed.clip(0, 1)  # interpolation may overshoot by rounding


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _rounded(geometry: Geometry) -> list:
    return [] if geometry.affine is None else np.round(geometry.affine[:3], 3).tolist()

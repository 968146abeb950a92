"""Voxel grids: a scan's own orientation <-> canonical RAS <-> the slices as they are shown and stored, without loss.

Only axes are permuted and flipped, nothing is interpolated, so an oblique scan stays oblique and every step can be
undone voxel for voxel. Orientation codes follow nibabel: "LPS" means that the first index grows towards the
patient's left, the second towards the back, the third towards the head.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)

from flipside.scans.pixels import resize_nearest

SIDE_MM = (0.001, 100.0)  # of a voxel or pixel; what lies beyond is a damaged header or no scan (a scout image)
FARTHEST_MM = 1e5  # from the scanner's origin


class GeometryError(ValueError):
    """A grid without a usable orientation, or an array that doesn't lie on the grid it should."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """The original grid of a scan (three axes, affine) or of a single image (rows, columns; no affine)."""

    shape: tuple[int, ...]  # as stored in the file: (I,J,K), or (rows, columns) of an image
    affine: np.ndarray | None  # (4,4) voxel index -> RAS+ mm
    orientation: str  # three codes such as "LPS"; "" for an image

    @classmethod
    def of_volume(cls, shape: tuple[int, ...], affine: np.ndarray) -> Geometry:
        """Grid of a volume; refuses an affine that is not finite, maps the volume onto less than three dimensions, or
        that no scanner has: sides beyond SIDE_MM, an origin beyond FARTHEST_MM, axes closer than 45 degrees."""
        affine = np.asarray(affine, np.float64)
        if len(shape) != 3 or affine.shape != (4, 4):
            raise GeometryError(f"expected three axes and a 4x4 affine, found shape {shape}, affine {affine.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            determinant, sides = np.linalg.det(affine[:3, :3]), voxel_sizes(affine)  # (3,)
        if not np.isfinite(affine).all() or abs(determinant) < 1e-12:
            raise GeometryError(f"the affine {affine.tolist()} is not finite or not invertible")
        if not plausible_sides(sides):
            raise GeometryError(f"the voxels measure {_short(sides)} mm, expected {SIDE_MM[0]} to {SIDE_MM[1]} mm")
        if np.abs(affine[:3, 3]).max() > FARTHEST_MM:
            raise GeometryError(f"the volume lies at {_short(affine[:3, 3])} mm, expected at most {FARTHEST_MM:.0f}")
        cosines = np.abs(np.triu((affine[:3, :3] / sides).T @ (affine[:3, :3] / sides), 1))
        if cosines.max() > np.sqrt(0.5):  # a tilted gantry makes up to 30 degrees of shear
            raise GeometryError(f"two axes of the affine are only {np.degrees(np.arccos(cosines.max())):.0f} degrees "
                                "apart")
        orientation = "".join(aff2axcodes(affine))
        return cls(tuple(int(length) for length in shape), affine, orientation)

    @classmethod
    def of_image(cls, rows: int, columns: int) -> Geometry:
        """Grid of a single image."""
        return cls((int(rows), int(columns)), None, "")

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 2

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """(X,Y,Z) after turning to RAS."""
        axes = axcodes2ornt(self.orientation)[:, 0].astype(int)
        return tuple(self.shape[int(np.flatnonzero(axes == axis)[0])] for axis in range(3))

    @property
    def canonical_affine(self) -> np.ndarray:
        """(4,4) affine of the volume after turning to RAS."""
        return self.affine @ inv_ornt_aff(axcodes2ornt(self.orientation), self.shape)

    @property
    def slice_spacing_mm(self) -> tuple[float, float, float]:
        """(row, column, between slices) in mm of the slices shown, from the affine."""
        x, y, z = voxel_sizes(self.canonical_affine)
        return float(y), float(x), float(z)

    @property
    def volume_over_sides(self) -> float:
        """Volume of a voxel over the product of its sides: 1, but less on a sheared grid (a tilted gantry)."""
        if self.affine is None:
            return 1.0
        axes = self.affine[:3, :3] / voxel_sizes(self.affine)
        return round(abs(float(np.linalg.det(axes))), 9)  # without the last digits' noise on oblique grids

    def to_json(self) -> str:
        """One line that is enough to put masks back without the original file; floats keep every digit."""
        affine = None if self.affine is None else self.affine.tolist()
        return json.dumps({"shape": self.shape, "affine": affine, "orientation": self.orientation})

    @classmethod
    def from_json(cls, text: str) -> Geometry:
        content: dict[str, Any] = json.loads(text)
        affine = None if content["affine"] is None else np.array(content["affine"], np.float64)
        return cls(tuple(content["shape"]), affine, content["orientation"])


def to_canonical(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A volume on the original grid as a RAS view (X,Y,Z)."""
    _check_shape(array.shape, geometry.shape)
    return apply_orientation(array, axcodes2ornt(geometry.orientation))


def from_canonical(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The reverse of `to_canonical`: a RAS volume (X,Y,Z) as a view on the original grid."""
    _check_shape(array.shape, geometry.canonical_shape)
    return apply_orientation(array, ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(geometry.orientation)))


def to_slices(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """An array on the original grid as slices (Z, rows, columns), a view; an image is one slice.

    Shown radiologically: row 0 is anterior, column 0 the patient's right, slice 0 the lowest.
    """
    if geometry.is_image:
        _check_shape(array.shape, geometry.shape)
        return array[None]  # (1,R,C)
    return to_canonical(array, geometry)[::-1, ::-1].transpose(2, 1, 0)  # (X,Y,Z) -> (Z,R,C)


def from_slices(slices: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The reverse of `to_slices`: (Z, rows, columns) as a view on the original grid."""
    if geometry.is_image:
        _check_shape(slices.shape, (1, *geometry.shape))
        return slices[0]  # (R,C)
    return from_canonical(slices.transpose(2, 1, 0)[::-1, ::-1], geometry)  # (Z,R,C) -> (X,Y,Z) -> original


def slices_shape(geometry: Geometry) -> tuple[int, int, int]:
    """(Z, rows, columns) of the slices on their native grid."""
    if geometry.is_image:
        rows, columns = geometry.shape
        return 1, rows, columns
    columns, rows, count = geometry.canonical_shape
    return count, rows, columns


def place_slices(slices: np.ndarray, z: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Masks or maps of some slices, back on the scan's original grid.

    `slices` (K,H,W) at the store's size in any dtype, `z` (K,) their slice numbers (canonical RAS axis 2; 0 for an
    image). Returns a new array of `geometry.shape` and the same dtype, resized by nearest neighbour, 0 elsewhere.
    Raises GeometryError for a slice number outside the scan or given twice.
    """
    count, rows, columns = slices_shape(geometry)
    z = np.asarray(z, int)
    if len(z) != len(slices) or len(np.unique(z)) != len(z) or (len(z) and not 0 <= z.min() <= z.max() < count):
        raise GeometryError(f"{len(slices)} slices with numbers {z.tolist()} can't be placed in a scan of {count}: "
                            "expected one different number from 0 for each")
    whole = np.zeros((count, rows, columns), slices.dtype)  # (Z,R,C)
    for number, image in zip(z, slices, strict=True):
        whole[number] = resize_nearest(image, rows, columns)
    return np.ascontiguousarray(from_slices(whole, geometry))


def grids_agree(first: Geometry, second: Geometry, tolerance: float = 0.1) -> bool:
    """Whether two volumes lie on the same physical grid, however each is stored: same canonical shape, and no corner
    further apart than `tolerance` of the smallest voxel side."""
    if first.canonical_shape != second.canonical_shape:
        return False
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in first.canonical_shape], [1])).reshape(4, -1)  # (4,8)
    apart = np.linalg.norm((first.canonical_affine - second.canonical_affine) @ corners, axis=0)
    return bool(apart.max() <= tolerance * voxel_sizes(first.affine).min())


def plausible_sides(sides: Sequence[float] | np.ndarray) -> bool:
    """Whether all sides of a voxel or pixel, in mm, are such as a scanner can have; False for NaN too."""
    return all(SIDE_MM[0] <= side <= SIDE_MM[1] for side in sides)


def _short(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        raise GeometryError(f"array of shape {tuple(found)} doesn't lie on the grid {tuple(expected)}")

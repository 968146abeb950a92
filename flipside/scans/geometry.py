"""Voxel grids: a scan's own orientation <-> canonical RAS <-> the slices as they are shown and stored, without loss.

Only axes are permuted and flipped, nothing is interpolated, so an oblique scan stays oblique, one under gantry tilt
stays sheared, and every step can be undone voxel for voxel. Orientation codes follow nibabel: "LPS" means that the
first index grows towards the patient's left, the second towards the back, the third towards the head. An axis halfway
between two directions gets the first of them (x before y before z), however its affine was rounded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    ornt_transform,
)

from flipside.scans.pixels import resize_nearest

SIDE_MM = (0.001, 100.0)  # of a voxel or pixel; what lies beyond is a damaged header or no scan (a scout image)
FARTHEST_MM = 1e5  # from the scanner's origin
TIE = 1e-3  # cosines that differ by less count as equal: an axis at 45 degrees
SAME_MM = 0.01  # share by which a voxel's side must exceed the others to count as the longest

Plane = Literal["axial", "coronal", "sagittal"]
# Canonical axes (0: x, right; 1: y, front; 2: z, head) that number the slices and run along their columns and rows.
AXES: dict[Plane, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


class GeometryError(ValueError):
    """A grid without a usable orientation, or an array that doesn't lie on the grid it should."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """The original grid of a scan (three axes, affine) or of a single image (rows, columns; no affine)."""

    shape: tuple[int, ...]  # as stored in the file: (I,J,K), or (rows, columns) of an image
    affine: np.ndarray | None  # (4,4) voxel index -> RAS+ mm
    orientation: str  # three codes such as "LPS"; "" for an image
    plane: Plane = "axial"  # in which a volume is cut into slices
    pixel_mm: tuple[float, float] = (1.0, 1.0)  # height and width of an image's pixel; a volume has them in its affine

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
        return cls(tuple(int(length) for length in shape), affine, _orientation(affine))

    @classmethod
    def of_image(cls, rows: int, columns: int) -> Geometry:
        """Grid of a single image."""
        return cls((int(rows), int(columns)), None, "")

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 2

    @cached_property
    def canonical_shape(self) -> tuple[int, ...]:
        """(X,Y,Z) after turning to RAS."""
        axes = axcodes2ornt(self.orientation)[:, 0].astype(int)
        return tuple(self.shape[int(np.flatnonzero(axes == axis)[0])] for axis in range(3))

    @property
    def canonical_affine(self) -> np.ndarray:
        """(4,4) affine of the volume after turning to RAS."""
        return self.affine @ inv_ornt_aff(axcodes2ornt(self.orientation), self.shape)

    @cached_property
    def slice_spacing_mm(self) -> tuple[float, float, float]:
        """(row, column, between slices) in mm of the slices shown, a volume's from its affine; 1 mm between images."""
        if self.affine is None:
            return *self.pixel_mm, 1.0
        sides = voxel_sizes(self.canonical_affine)  # (3,)
        normal, along_column, along_row = AXES[self.plane]
        return float(sides[along_column]), float(sides[along_row]), float(sides[normal])

    @property
    def native_plane(self) -> Plane:
        """The plane across the longest side of a voxel, in which slices have the highest resolution; sides that differ
        by less than SAME_MM of it are equal, and then axial comes first, sagittal last."""
        sides = voxel_sizes(self.canonical_affine)
        return next(plane for plane, (normal, _, _) in AXES.items() if sides[normal] >= sides.max() * (1 - SAME_MM))

    def turned_like(self, other: Geometry) -> Geometry:
        """The same grid with its axes named as those of `other` that they run along: both volumes become slices alike
        where their affines differ only by rounding, also at 45 degrees."""
        return replace(self, orientation=_orientation(np.linalg.inv(other.canonical_affine) @ self.affine),
                       plane=other.plane)

    def content_box(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a slice resized to `shape` (H,W) that show the scan; padding lies around them.

        A pixel measures as many mm in height as in width (to half a pixel over the box), and the box is as large as
        fits, in the middle.
        """
        (_, rows, columns), (row_mm, column_mm, _) = slices_shape(self), self.slice_spacing_mm
        sides = rows * row_mm, columns * column_mm
        pixel = max(side / length for side, length in zip(sides, shape, strict=True))
        lengths = [max(1, round(side / pixel)) for side in sides]
        starts = [(whole - length) // 2 for whole, length in zip(shape, lengths, strict=True)]
        return slice(starts[0], starts[0] + lengths[0]), slice(starts[1], starts[1] + lengths[1])

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
        return json.dumps({"shape": self.shape, "affine": affine, "orientation": self.orientation, "plane": self.plane,
                           "pixel_mm": self.pixel_mm})

    @classmethod
    def from_json(cls, text: str) -> Geometry:
        content: dict[str, Any] = json.loads(text)
        affine = None if content["affine"] is None else np.array(content["affine"], np.float64)
        return cls(tuple(content["shape"]), affine, content["orientation"], content["plane"],
                   tuple(content["pixel_mm"]))


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

    Shown radiologically. Axial: row 0 is anterior, column 0 the patient's right, slice 0 the lowest; coronal: row 0 is
    the uppermost, column 0 the patient's right, slice 0 the hindmost; sagittal: row 0 is the uppermost, column 0
    anterior, slice 0 the leftmost.
    """
    if geometry.is_image:
        _check_shape(array.shape, geometry.shape)
        return array[None]  # (1,R,C)
    return to_canonical(array, geometry).transpose(AXES[geometry.plane])[:, ::-1, ::-1]  # (X,Y,Z) -> (Z,R,C)


def from_slices(slices: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The reverse of `to_slices`: (Z, rows, columns) as a view on the original grid."""
    if geometry.is_image:
        _check_shape(slices.shape, (1, *geometry.shape))
        return slices[0]  # (R,C)
    back = np.argsort(AXES[geometry.plane])
    return from_canonical(slices[:, ::-1, ::-1].transpose(back), geometry)  # (Z,R,C) -> (X,Y,Z) -> original


def slices_shape(geometry: Geometry) -> tuple[int, int, int]:
    """(Z, rows, columns) of the slices on their native grid."""
    if geometry.is_image:
        rows, columns = geometry.shape
        return 1, rows, columns
    count, rows, columns = (geometry.canonical_shape[axis] for axis in AXES[geometry.plane])
    return count, rows, columns


def place_slices(slices: np.ndarray, z: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Masks or maps of some slices, back on the scan's original grid.

    `slices` (K,H,W) at the store's size in any dtype, `z` (K,) their slice numbers (along the canonical axis across
    the plane; 0 for an image). Returns a new array of `geometry.shape` and the same dtype, without the padding,
    resized by nearest neighbour, 0 elsewhere. Raises GeometryError for a slice number outside the scan or given twice.
    """
    count, rows, columns = slices_shape(geometry)
    z = np.asarray(z, int)
    if len(z) != len(slices) or len(np.unique(z)) != len(z) or (len(z) and not 0 <= z.min() <= z.max() < count):
        raise GeometryError(f"{len(slices)} slices with numbers {z.tolist()} can't be placed in a scan of {count}: "
                            "expected one different number from 0 for each")
    box = geometry.content_box((slices.shape[-2], slices.shape[-1]))
    whole = np.zeros((count, rows, columns), slices.dtype)  # (Z,R,C)
    for number, image in zip(z, slices, strict=True):
        whole[number] = resize_nearest(image[box], rows, columns)
    return np.ascontiguousarray(from_slices(whole, geometry))


def grids_agree(first: Geometry, second: Geometry, tolerance: float = 0.1) -> bool:
    """Whether two volumes lie on the same physical grid, however each is stored: same canonical shape, and no corner
    further apart than `tolerance` of the smallest voxel side."""
    second = second.turned_like(first)
    if first.canonical_shape != second.canonical_shape:
        return False
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in first.canonical_shape], [1])).reshape(4, -1)  # (4,8)
    apart = np.linalg.norm((first.canonical_affine - second.canonical_affine) @ corners, axis=0)
    return bool(apart.max() <= tolerance * voxel_sizes(first.affine).min())


def plausible_sides(sides: Sequence[float] | np.ndarray) -> bool:
    """Whether all sides of a voxel or pixel, in mm, are such as a scanner can have; False for NaN too."""
    return all(SIDE_MM[0] <= side <= SIDE_MM[1] for side in sides)


def _orientation(affine: np.ndarray) -> str:
    """Three codes as nibabel's: the axis that lies closest to a direction takes it first. Where cosines differ by less
    than TIE, the first axis and the first direction count, for which nibabel lets rounding decide."""
    left, _, right = np.linalg.svd(affine[:3, :3] / voxel_sizes(affine))
    cosines = left @ right  # (3,3) of the nearest grid with right angles: directions x, y, z by axes of the volume
    codes, closest = ["", "", ""], np.abs(cosines).max(axis=0)  # (3,) by axes
    for _ in range(3):
        axis = int(np.flatnonzero(closest >= closest.max() - TIE)[0])
        sizes = np.abs(cosines[:, axis])  # (3,), 0 for a direction that is taken
        direction = int(np.flatnonzero(sizes >= sizes.max() - TIE)[0])
        codes[axis] = ("LR", "PA", "IS")[direction][int(cosines[direction, axis] > 0)]
        cosines[direction], closest[axis] = 0, -1
    return "".join(codes)


def _short(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        raise GeometryError(f"array of shape {tuple(found)} doesn't lie on the grid {tuple(expected)}")

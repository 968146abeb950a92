"""DICOM frames in space: each one's place, their order along the slices' normal, and the grid of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flipside.scans.dicom_header import LEAVE_OUT, Header
from flipside.scans.geometry import Geometry, GeometryError
from flipside.scans.readers import ReadError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
POSITION_TOLERANCE = 0.25  # of the slice step; scanners round positions, a missing slice moves the rest by a whole step
SAME_MM = 1e-3  # two slices closer than this lie at the same position


@dataclass(frozen=True)
class PlacedHeader:
    """A header with all that places its frame in the scanner; see Header."""

    header: Header
    spacing_mm: tuple[float, float]
    position: np.ndarray  # (3,)
    axes: np.ndarray  # (2,3)

    @property
    def path(self) -> Path:
        return self.header.path


def place(header: Header) -> PlacedHeader:
    """Raises ReadError, with the keyword, for a header that doesn't place its frame."""
    missing = ("PixelSpacing" if header.spacing_mm is None else
               "ImageOrientationPatient" if header.axes is None else "ImagePositionPatient")
    if header.spacing_mm is None or header.axes is None or header.position is None:
        many = f"has {header.frames} frames and" if header.frames > 1 else "has"
        raise ReadError(header.path, f"{many} no {missing}" + (" for each of them" if header.frames > 1 else ""),
                        f"A volume can't be built from it. {LEAVE_OUT}")
    if not np.allclose(header.axes @ header.axes.T, np.eye(2), atol=1e-3):
        raise ReadError(header.path, "ImageOrientationPatient is no pair of perpendicular unit vectors", LEAVE_OUT)
    return PlacedHeader(header, header.spacing_mm, header.position, header.axes)


def differing_grids(first: PlacedHeader, other: PlacedHeader) -> str:
    """In what two frames differ so that they are no slices of one volume; "" where they agree."""
    for what, same in (
        ("sizes", first.header.shape == other.header.shape),
        ("orientations", np.allclose(first.axes, other.axes, atol=1e-3)),
        ("pixel spacings", np.allclose(first.spacing_mm, other.spacing_mm, rtol=1e-3)),
    ):
        if not same:
            return what
    return ""


def heights_along_normal(placed: Sequence[PlacedHeader]) -> np.ndarray:
    """Distances (K,) of the frames from the origin along the first one's normal, in mm."""
    normal = np.cross(placed[0].axes[0], placed[0].axes[1])
    return np.array([one.position @ normal for one in placed])


def sort_along_normal(placed: Sequence[PlacedHeader]) -> tuple[list[PlacedHeader], np.ndarray]:
    """Frames from the first to the last along the normal, and the step (3,) LPS mm from one to the next.

    Raises ReadError for frames at the same position, gaps, and frames off the line of the others.
    """
    normal = np.cross(placed[0].axes[0], placed[0].axes[1])
    ordered = [placed[k] for k in np.argsort(heights_along_normal(placed), kind="stable")]
    if len(ordered) == 1:
        thickness = ordered[0].header.thickness_mm
        if not thickness:
            raise ReadError(ordered[0].path, "is a single slice without SliceThickness", LEAVE_OUT)
        return ordered, normal * thickness
    positions = np.array([one.position for one in ordered])  # (K,3)
    gaps = np.diff(positions @ normal)  # (K-1,)
    usual = float(np.median(gaps))
    for k, gap in enumerate(gaps):
        after = ordered[k].path
        if gap < SAME_MM:
            raise ReadError(ordered[k + 1].path, f"lies at the same position as {after.name}",
                            "Keep one phase or repetition of the series in the folder")
        if abs(gap - usual) > POSITION_TOLERANCE * usual:
            raise ReadError(after, f"gap in the series: {gap:.3f} mm to the next slice, elsewhere {usual:.3f} mm "
                            f"({len(ordered)} slices)", "Get the missing slices, or resample the series evenly")
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(ordered))[:, None] * step), axis=1)  # (K,)
    if off.max() > POSITION_TOLERANCE * usual:
        raise ReadError(ordered[int(off.argmax())].path, f"lies {off.max():.3f} mm off the series' line of slices",
                        "Resample the series evenly")
    return ordered, step


def grid_of_slices(ordered: Sequence[PlacedHeader], step: np.ndarray) -> Geometry:
    """Grid (columns, rows, slices) with its RAS affine (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1)."""
    first = ordered[0]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[0] * first.spacing_mm[1]  # along a row: from column to column
    affine[:3, 1] = first.axes[1] * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    try:
        return Geometry.of_volume((first.header.shape[1], first.header.shape[0], len(ordered)), LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise ReadError(first.path, str(error), LEAVE_OUT) from None

"""DICOM: frames as a volume with a RAS affine, or one image.

Positions and orientations follow DICOM PS3.3 C.7.6.2 (image plane); DICOM counts millimetres towards the patient's
left, back and head (LPS), NIfTI towards right, front and head (RAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flipside.scans.dicom_grouping import (
    DicomVolume,
    FoundVolumes,
    files_below,
    find_volumes,
    only_volume,
    seems_dicom,
    split_series,
)
from flipside.scans.dicom_header import LEAVE_OUT, Header, read_header, read_headers
from flipside.scans.dicom_header import words_in_header as words_in_header  # part of what this file offers
from flipside.scans.dicom_pixels import read_planes
from flipside.scans.dicom_placing import differing_grids, grid_of_slices, place, sort_along_normal
from flipside.scans.geometry import Geometry, to_slices
from flipside.scans.readers import ReadError, Volume


def read_dicom_image(path: Path) -> tuple[Volume, Header]:
    """One DICOM image (mammogram, X-ray, a single slice) as it is displayed, and its header."""
    header = read_header(path)
    planes, slope, intercept = read_planes([header])  # (1,R,C)
    return Volume(planes, slope, intercept, Geometry.of_image(*planes.shape[1:])), header


def read_dicom_volume(path: Path) -> tuple[Volume, Header]:
    """A folder with one series of slices, a multi-frame file, or a file with one image; and its lowest (only) header.

    In a folder, and in those below it, localizers, reports, segmentations and directories are left out by what they
    are, and so is what isn't DICOM. Raises ReadError for a folder or file that holds no volume or several.
    """
    if path.is_dir():
        return read_frames(only_volume(path, find_volumes(filter(seems_dicom, files_below(path)))))
    headers = read_headers(path)
    if len(headers) == 1:
        return read_dicom_image(path)
    return read_frames(only_volume(path, find_volumes([path])))


def read_dicom_series(paths: Sequence[Path]) -> tuple[Volume, Header]:
    """The files of one series as a volume, sorted along the slices' normal, and the lowest frame's header.

    Raises ReadError for files that are no slices, for several series, orientations, sizes, spacings or acquisitions
    among them, for slices that are missing, doubled or unevenly spaced, for some without the others' rescaling, and
    for headers without position, orientation or spacing.
    """
    headers = [header for path in sorted(paths) for header in read_headers(path)]
    first = place(headers[0])
    for header in headers:
        if header.no_volume:
            raise ReadError(header.path, header.no_volume, LEAVE_OUT)
        what = differing_grids(first, place(header))
        if header.series != headers[0].series or what:
            what = what if header.series == headers[0].series else "series"
            raise ReadError(header.path, f"{len(headers)} slices are of several {what}: this one differs from "
                            f"{first.path.name}", "Give each series a folder of its own")
    return read_frames(only_volume(sorted(paths)[0], FoundVolumes(split_series(headers), [], ())))


def read_frames(volume: DicomVolume) -> tuple[Volume, Header]:
    """The volume that frames make, and the lowest frame's header. Raises ReadError, the volume's own where it has a
    fault."""
    if volume.fault:
        raise volume.fault
    ordered, step = sort_along_normal([place(header) for header in volume.headers])
    geometry = grid_of_slices(ordered, step)
    planes, slope, intercept = read_planes([one.header for one in ordered])  # (K,R,C)
    # (K,R,C) -> (C,R,K): the axes in the affine's order, as NIfTI converters write them.
    return Volume(to_slices(planes.transpose(2, 1, 0), geometry), slope, intercept, geometry), ordered[0].header

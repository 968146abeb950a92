"""One row of a table of scans: what it says, and its files read as one scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.misc import is_dicom

from flipside.core.files import file_digest
from flipside.scans.dicom import read_dicom_volume, words_in_header
from flipside.scans.dicom_grouping import files_below
from flipside.scans.endings import NIFTI
from flipside.scans.geometry import Geometry, grids_agree
from flipside.scans.labels import Ignored, Mask, check_values
from flipside.scans.pictures import ColourMode, read_image_channels, read_image_labels
from flipside.scans.privacy import ScanNames, anonymous_names, salted_hash
from flipside.scans.readers import ReadError, Volume, read_nifti, read_nifti_labels
from flipside.scans.scan import UNLABELLED, Scan

SPACING_TOLERANCE = 0.01  # of a spacing: tables are written with few digits

Values = tuple[int, ...] | None  # of a mask that belong to the structure; None: every value but 0


@dataclass(frozen=True)
class Row:
    """A row of the table, its paths made whole."""

    place: str  # the table's file and the line, for messages
    path: Path
    more: tuple[Path, ...]  # further volumes on the same grid
    label: int | None  # 0, 1, UNLABELLED (the masks say), None: left out
    patient: str
    split: str
    site: str
    slice_number: int | None  # of a picture that is a slice of the patient's scan
    masks: tuple[Path, ...]
    organs: tuple[Path, ...] | Literal["nonzero"]
    spacing_mm: tuple[float, float] | None  # height and width of a pixel


@dataclass(frozen=True)
class _Read:
    volumes: tuple[Volume, ...]  # three of a picture in colours, else one
    names: ScanNames
    spacing_mm: tuple[float, float] | None  # as the file says


def parse_spacing(text: str) -> tuple[float, float] | None:
    """Height and width in mm of `0.7x0.6` or `0.7`; None for anything else."""
    parts = re.split(r"\s*[x×*]\s*", text.strip().lower().removesuffix("mm").strip())
    try:
        sides = [float(part) for part in parts]
    except ValueError:
        return None
    if len(sides) > 2 or not all(0 < side < np.inf for side in sides):
        return None
    return sides[0], sides[-1]


def is_dicom_path(path: Path) -> bool:
    """Whether a path of a table is a folder of DICOM files or a DICOM file."""
    return path.is_dir() or path.suffix.lower() == ".dcm" or is_dicom(path)


def is_nifti_path(path: Path) -> bool:
    """Whether a file's name ends as that of a NIfTI volume."""
    return path.name.lower().endswith(NIFTI)


@dataclass(frozen=True)
class Reading:
    """How the rows of a data set are read."""

    root: Path
    colour: ColourMode  # of pictures
    spacing_mm: tuple[float, float]  # of pixels of which neither file nor row tells it
    organ_values: Values
    mask_values: Values
    ignored: Ignored  # values that masks may hold besides


def read_row(name: str, row: Row, how: Reading, salt: str) -> Scan:
    """The scan of a row, called `name`, with its masks; `salt` is hashed with the patient's name.

    Raises ReadError for a file that can't be read right, volumes or masks on another grid, a spacing that contradicts
    the file's, and a label that contradicts the mask.
    """
    read = _read_scan(row.path, name, how, salt)
    geometry = read.volumes[0].geometry
    channels = [*read.volumes]
    for path in row.more:
        more = _read_scan(path, name, how, salt).volumes
        if not _on_grid(more[0].geometry, geometry):
            raise ReadError(path, f"lies on another grid (shape {more[0].geometry.shape}) than {row.path} (shape "
                            f"{geometry.shape}), {row.place}", "Resample it onto the grid of the first volume")
        channels += more if geometry.is_image else [volume.cut_like(geometry) for volume in more]
    organ = row.organs if row.organs == "nonzero" else _read_mask(row.organs, row, geometry, how.organ_values, how)
    lesion = _read_mask(row.masks, row, geometry, how.mask_values, how)
    patient = salted_hash(row.patient, salt) if row.patient else read.names.patient_id
    return Scan(
        scan_id=read.names.scan_id, patient_id=patient, source_file=read.names.source_file, channels=tuple(channels),
        spacing_mm=_spacing(read, row, how.spacing_mm), organ=organ, lesion=lesion, given_split=row.split,
        site=row.site, slice_number=row.slice_number if geometry.is_image else None,
        class_label=_label(row, lesion, geometry),
        image_digest=file_digest(row.path) if geometry.is_image else "")


def words_of_row(path: Path) -> list[str]:
    """Identifying words in the headers of a scan's files; none where they are no DICOM."""
    if not is_dicom_path(path):
        return []
    files = files_below(path) if path.is_dir() else [path]
    return sorted({word for file in files for word in words_in_header(file)})


def _read_scan(path: Path, name: str, how: Reading, salt: str) -> _Read:
    relative = path.relative_to(how.root).as_posix()
    if is_dicom_path(path):
        volume, header = read_dicom_volume(path)
        names = anonymous_names(name, relative, header.patient, header.names, salt)
        return _Read((volume,), names, header.spacing_mm)
    volumes = (read_nifti(path),) if is_nifti_path(path) else read_image_channels(path, how.colour)
    return _Read(volumes, ScanNames(name, name, relative), None)


def _spacing(read: _Read, row: Row, default: tuple[float, float]) -> tuple[float, float, float]:
    """Height and width of a pixel and distance of the slices in mm, which a volume knows by itself."""
    geometry = read.volumes[0].geometry
    if geometry.is_image:
        own, depth = read.spacing_mm, 1.0
    else:
        height, width, depth = geometry.slice_spacing_mm
        own = (height, width)
    if own and row.spacing_mm and not np.allclose(own, row.spacing_mm, rtol=SPACING_TOLERANCE):
        raise ReadError(row.path, f"has pixels of {own[0]:g}x{own[1]:g} mm, {row.place} says "
                        f"{row.spacing_mm[0]:g}x{row.spacing_mm[1]:g}", "Leave the table's spacing empty where the "
                        "file knows its own")
    return *(own or row.spacing_mm or default), depth


def _read_mask(paths: Sequence[Path], row: Row, geometry: Geometry, values: Values, how: Reading) -> Mask | None:
    """The union of a row's mask files, which lie on the scan's grid; None where it names none.

    Raises ReadError for a value that nothing names: it may be a lesion's under another number.
    """
    if not paths:
        return None
    layers = []
    for path in paths:
        if geometry.is_image:
            labels = read_image_labels(path, geometry, row.path, None)
        elif is_nifti_path(path):
            labels = read_nifti_labels(path, geometry, row.path)
        else:
            raise ReadError(path, f"is no NIfTI file, but the mask of a volume, {row.place}", "Save it as .nii.gz on "
                            "the volume's grid")
        if values is not None and how.ignored != "any":
            check_values(path, labels, {*values, *how.ignored, *_values_of(path, row, how)})
        layers.append((labels, values))
    return Mask(tuple(layers))


def _values_of(path: Path, row: Row, how: Reading) -> set[int]:
    """All values that the data set names of a file, which may be the mask of organ and lesion."""
    organs = () if row.organs == "nonzero" else row.organs
    named = [values for files, values in ((organs, how.organ_values), (row.masks, how.mask_values)) if path in files]
    return {value for values in named if values is not None for value in values}


def _label(row: Row, lesion: Mask | None, geometry: Geometry) -> int:
    """The label of an image, or of all slices of a volume; UNLABELLED where the mask says it of each slice."""
    label = UNLABELLED if row.label is None else row.label
    if lesion is None or label == UNLABELLED:
        return label
    present = any(lesion.slice(z).any() for z in range(len(lesion.layers[0][0])))
    if present != bool(label):
        raise ReadError(row.path, f"has the label {label}, but its mask {'holds a' if present else 'holds no'} lesion, "
                        f"{row.place}", "Correct the label or the mask")
    return label if geometry.is_image else UNLABELLED


def _on_grid(one: Geometry, other: Geometry) -> bool:
    return one.shape == other.shape if one.is_image else not other.is_image and grids_agree(one, other)

"""One case of a data set, read: its slices, its masks, whose it is and what its data set says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydicom.misc import is_dicom

from flipside.core.files import file_digest
from flipside.scans.dicom import (
    Header,
    read_dicom_image,
    read_dicom_series,
    salted_hash,
    without_names,
    words_in_header,
)
from flipside.scans.geometry import Geometry
from flipside.scans.layouts import (
    Block,
    Case,
    ClassFolders,
    DatasetError,
    DicomBirads,
    DicomSeries,
    ImageMask,
    ImageMasks,
    NiftiCases,
    VolumeMask,
    companions,
)
from flipside.scans.readers import (
    Mask,
    ReadError,
    Volume,
    check_values,
    read_image,
    read_image_labels,
    read_nifti,
    read_nifti_labels,
)

Table = dict[str, tuple[int | None, str]]  # {case}: class label (None: left out), patient as the table has it


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan or image in memory; slices are numbered from the lowest."""

    scan_id: str
    patient_id: str
    source_file: str  # relative to the data set's root, without a patient's name
    volume: Volume
    organ: Mask | Literal["nonzero"] | None  # None: the data set has no organ labels
    lesion: Mask | None
    class_label: int  # -1 where the data set has no labels of whole images
    given_split: str
    spacing_mm: tuple[float, float, float]  # row, column, between slices; 1 mm between the slices of an image
    image_digest: str  # sha256 of an image's file; "" for a volume

    def organ_slice(self, z: int) -> np.ndarray | None:
        """(R,C) bool, or None without organ labels."""
        if self.organ is None:
            return None
        return self.volume.slice(z) != 0 if self.organ == "nonzero" else self.organ.slice(z)


def read_table(block: Block) -> Table:
    """The CSV labels of a `dicom_birads` data set; {} for other layouts.

    Raises DatasetError for a missing file or column and for a value that `classes` doesn't list.
    """
    table: Table = {}
    for name in block.tables if isinstance(block, DicomBirads) else []:
        file = Path(block.root) / name
        if not file.is_file():
            raise DatasetError(f"{file} not found: it has the labels; get it from {block.page}")
        rows = pd.read_csv(file, sep=block.separator, dtype=str, keep_default_na=False, skipinitialspace=True)
        wanted = [column for column in (block.file_column, block.label_column, block.patient_column) if column]
        missing = [column for column in wanted if column not in rows]
        if missing:
            raise DatasetError(f"{file} has no column {missing[0]!r}; it has {list(rows.columns)}")
        for number, row in enumerate(rows[wanted].to_dict("records"), start=2):
            value = row[block.label_column].strip()
            match = re.search(block.file_pattern, row[block.file_column].strip())
            if not match:
                raise DatasetError(f"{file}, line {number}: {row[block.file_column]!r} doesn't match `file_pattern`")
            if value not in block.classes:
                raise DatasetError(f"{file}, line {number}: {block.label_column} is {value!r}, which `classes` doesn't "
                                   f"list: {list(block.classes)}")
            label, patient = block.classes[value], row.get(block.patient_column, "").strip()
            before, patient = table.get(match.group(1), (None, patient))
            known = [one for one in (before, label) if one is not None]
            table[match.group(1)] = (max(known, default=None), patient)
    return table


def read_case(case: Case, block: Block, table: Table, salt: str) -> Scan:
    """Read one case with its masks. Raises ReadError for anything that can't be read right."""
    match block:
        case NiftiCases():
            volume = read_nifti(case.path)
            organ, lesion = _volume_masks(case, block, volume.geometry)
            return _scan(case, block, volume, organ=organ, lesion=lesion)
        case DicomSeries():
            return _read_series(case, block, salt)
        case ImageMasks():
            volume = read_image(case.path)
            organ, lesion = _image_masks(case, block, volume.geometry)
            return _scan(case, block, volume, organ=organ, lesion=lesion)
        case ClassFolders():
            return _scan(case, block, read_image(case.path), class_label=block.classes[case.class_name])
        case DicomBirads():
            return _read_mammogram(case, block, table, salt)


def names_in(case: Case, block: Block) -> Sequence[str]:
    """Identifying words in a case's DICOM headers, for keeping them out of messages about it."""
    if isinstance(block, DicomSeries):
        files = [path for path in case.path.glob(block.files) if path.is_file()]
    else:
        files = [case.path] if isinstance(block, DicomBirads) else []
    return sorted({word for file in files for word in words_in_header(file)})


def _scan(case: Case, block: Block, volume: Volume, **known) -> Scan:
    geometry = volume.geometry
    if geometry.is_image:
        known = {"spacing_mm": (*(block.spacing_mm or (1.0, 1.0)), 1.0), "image_digest": file_digest(case.path)} | known
    else:
        known = {"spacing_mm": geometry.slice_spacing_mm, "image_digest": ""} | known
    if "patient_id" not in known:
        known["patient_id"] = _patient(case, block.patient, case.case) if block.patient else case.name
    source = case.path.relative_to(block.root).as_posix()
    return Scan(**{"scan_id": case.name, "source_file": source, "volume": volume, "organ": None, "lesion": None,
                   "class_label": -1, "given_split": case.split} | known)


def _patient(case: Case, pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if not match:
        raise ReadError(case.path, f"no patient in {text!r} by the pattern {pattern!r}",
                        "Correct the data set's `patient`")
    return match.group(1)


def _volume_masks(case: Case, block: NiftiCases | DicomSeries, geometry: Geometry
                  ) -> tuple[Mask | Literal["nonzero"] | None, Mask | None]:
    def read(path: Path, mask: VolumeMask) -> np.ndarray:
        return read_nifti_labels(path, geometry, case.path)
    return _masks(case, block, read)


def _image_masks(case: Case, block: ImageMasks, geometry: Geometry) -> tuple[Mask | None, Mask | None]:
    def read(path: Path, mask: ImageMask) -> np.ndarray:
        return read_image_labels(path, geometry, case.path, mask.colours)
    return _masks(case, block, read)


def _masks(case: Case, block, read) -> tuple:
    """Organ and lesion of a case; each file is decoded once, also where both stand in it."""
    labels: dict[tuple, np.ndarray] = {}
    known: dict[tuple, set[int] | None] = {}  # values that each file may hold; None: any
    masks = []
    for spec in (block.organ, block.lesion):
        if spec is None or spec == "nonzero":
            masks.append(spec)
            continue
        layers = []
        for path in companions(Path(block.root), spec.files, case):
            key = (path, getattr(spec, "colours", None) and str(spec.colours))
            if key not in labels:
                labels[key] = read(path, spec)
                known[key] = None if block.ignored == "any" else set(block.ignored)
            known[key] = None if spec.values is None or known[key] is None else known[key] | set(spec.values)
            layers.append((labels[key], None if spec.values is None else tuple(spec.values)))
        masks.append(Mask(tuple(layers)))
    for (path, colours), values in known.items():
        if values is not None and not colours:
            check_values(path, labels[path, colours], values)
    return tuple(masks)


def _series_files(case: Case, block: DicomSeries) -> list[Path]:
    files = sorted(path for path in case.path.glob(block.files)
                   if path.is_file() and not path.name.startswith(".") and path.name != "DICOMDIR")
    if not files:
        raise ReadError(case.path, f"holds no file that matches {block.files!r}", "Correct the data set's `files`")
    return files


def _read_series(case: Case, block: DicomSeries, salt: str) -> Scan:
    volume, header = read_dicom_series(_series_files(case, block))
    organ, lesion = _volume_masks(case, block, volume.geometry)
    return _scan(case, block, volume, organ=organ, lesion=lesion, **_anonymous(case, block, header, salt))


def _read_mammogram(case: Case, block: DicomBirads, table: Table, salt: str) -> Scan:
    if case.case not in table:
        raise ReadError(case.path, f"no row of {block.tables} is about {case.case!r}",
                        "Correct the data set's `file_pattern`, or move the image away")
    label, patient = table[case.case]
    known, spacing = {}, None
    if is_dicom(case.path):
        volume, header = read_dicom_image(case.path)
        known, spacing = _anonymous(case, block, header, salt), header.spacing_mm
    else:
        volume = read_image(case.path)
    spacing = spacing or block.spacing_mm
    if spacing is None:
        raise ReadError(case.path, "has no pixel spacing", "Give the data set's `spacing_mm`")
    if block.patient_column or block.patient:
        path = case.path.relative_to(block.root).as_posix()
        patient = patient if block.patient_column else _patient(case, block.patient, path)
        known["patient_id"] = salted_hash(patient, salt)
    return _scan(case, block, volume, class_label=label, **known | {"spacing_mm": (*spacing, 1.0)})


def _anonymous(case: Case, block: Block, header: Header, salt: str) -> dict[str, str]:
    """Names for a scan that came with a DICOM header: salted hashes, and paths without the header's words."""
    path = case.path.relative_to(block.root).as_posix()
    return {"patient_id": salted_hash(header.patient or path, salt),
            "scan_id": without_names(case.name, header.names, salt),
            "source_file": without_names(path, header.names, salt)}

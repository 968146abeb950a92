"""Mammograms as single DICOM images or pictures, with their BI-RADS or pathology in CSV tables."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pydantic
from pydicom.misc import is_dicom

from flipside.core.files import file_digest
from flipside.scans.dicom import read_dicom_image, words_in_header
from flipside.scans.labels import Mask, find_label_files
from flipside.scans.layout import (
    ClassName,
    DatasetError,
    FoundScan,
    Label,
    LeftOut,
    Regex,
    Spacing,
    check_patients,
    patient_in,
    patients_in,
)
from flipside.scans.patterns import readable
from flipside.scans.picture_layout import PictureLayout
from flipside.scans.pictures import read_image_channels
from flipside.scans.privacy import ScanNames, anonymous_names, salted_hash
from flipside.scans.readers import ReadError, Volume
from flipside.scans.scan import UNLABELLED, Scan
from flipside.scans.tables import need_columns, read_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mammogram(FoundScan):
    """An image with the names under which its table lists its masks."""

    mask_cases: tuple[str, ...] = ()


class Listed(NamedTuple):
    """What the tables say of one image."""

    label: int | None  # None: left out
    patient: str
    mask_cases: tuple[str, ...]


class DicomBirads(PictureLayout):
    layout: Literal["dicom_birads"]
    image: str
    """Pattern of the images (DICOM, or PNG and the like), with {case}."""
    tables: list[str] = pydantic.Field(min_length=1)
    """CSV files under the root; an image with several rows is abnormal if one of them is."""
    separator: str = pydantic.Field(",", min_length=1, max_length=1)
    """Character between the CSV files' columns."""
    file_column: str
    """Column that names the image."""
    file_pattern: Regex = r"([^/]+?)(?:\.[^./]*)?$"
    """Regular expression whose group in that column is the image's {case}; by default the file's name without its
    ending."""
    label_column: str
    """Column with the BI-RADS category or the pathology."""
    classes: dict[ClassName, Label | None]
    """Its values -> 0 healthy, 1 abnormal, null left out."""
    mask_column: str | None = None
    """Column with the path of the lesion's mask, of which `file_pattern` takes the mask's {case}; null: no masks."""
    masks: str | None = None
    """Pattern of the mask files, with {case}. Of the files that match, those of the image's size are masks; crops of it
    may lie beside them. Only images that `classes` calls abnormal have a mask; all their rows' masks are joined."""
    patient_column: str | None = None
    """Column with the patient's id; null: the id comes from `patient`."""
    patient: Regex | None = None
    """Regular expression whose group in the image's path is the patient; null: the id comes from the DICOM header."""
    spacing_mm: Spacing | None = None
    """Height and width of a pixel in mm for images that have no spacing of their own; null: those are refused."""

    @pydantic.model_validator(mode="after")
    def _masks_named(self) -> DicomBirads:
        if (self.mask_column is None) != (self.masks is None):
            raise ValueError("`mask_column` and `masks` need each other: set both, or neither")
        if self.masks is not None and "{case}" not in self.masks:
            raise ValueError("`masks` must contain {case}")
        return self

    def find_scans(self, dataset: str) -> list[FoundScan]:
        return self.find_scans_and_others(dataset)[0]

    def find_scans_and_others(self, dataset: str) -> tuple[list[FoundScan], list[LeftOut]]:
        found, rows = self.find_by_pattern(dataset, self.image), self.read_tables()
        table, parts = self.labels_in(rows), self._named_elsewhere(rows)
        scans: list[FoundScan] = []
        others: list[LeftOut] = []
        for scan in found:
            case = readable(scan.case)
            if case not in table and case in parts:
                others.append(LeftOut(scan, ReadError(scan.path, "is no image of its own: the tables name it under "
                                                      f"{parts[case]!r}", "Nothing needs be done")))
                continue
            label, patient, masks = table.get(case, Listed(UNLABELLED, "", ()))
            scans.append(Mammogram(scan.name, scan.path, scan.case, label, patient=patient,
                                   mask_cases=masks if label == 1 else ()))
        if self.patient_column:
            check_patients(dataset, "patient_column", [listed.patient for listed in table.values()])
        elif self.patient:
            check_patients(dataset, "patient", patients_in([self.relative(scan.path) for scan in scans], self.patient))
        return scans, others

    def _named_elsewhere(self, tables: Mapping[Path, pd.DataFrame]) -> dict[str, str]:
        """{case: column} of files that the tables name in other columns, such as crops and ROI masks of an image."""
        named: dict[str, str] = {}
        for rows in tables.values():
            for column in rows.columns.drop([self.file_column]):
                named |= {match.group(1): column for value in rows[column]
                          if "/" in value and (match := re.search(self.file_pattern, value))}
        return named

    def read_tables(self) -> dict[Path, pd.DataFrame]:
        """{file: its rows}. Raises DatasetError for a missing file."""
        found: dict[Path, pd.DataFrame] = {}
        for name in self.tables:
            file = Path(self.root) / name
            if not file.is_file():
                raise DatasetError(f"{file} not found: it has the labels; get it{self.source}")
            found[file] = read_table(file, self.separator)
        return found

    def labels_in(self, tables: Mapping[Path, pd.DataFrame]) -> dict[str, Listed]:
        """{case: its label, its patient as the table names it, and its masks' {case}}.

        Raises TableError for a missing column, DatasetError for a value that `classes` doesn't list.
        """
        table: dict[str, Listed] = {}
        for file, rows in tables.items():
            wanted = [column for column in (self.file_column, self.label_column, self.mask_column, self.patient_column)
                      if column]
            need_columns(file, rows, wanted)
            for number, row in enumerate(rows[wanted].to_dict("records"), start=2):
                value = row[self.label_column]
                match = re.search(self.file_pattern, row[self.file_column])
                if not match:
                    raise DatasetError(f"{file}, line {number}: {row[self.file_column]!r} doesn't match `file_pattern`")
                if value not in self.classes:
                    raise DatasetError(f"{file}, line {number}: {self.label_column} is {value!r}, which `classes` "
                                       f"doesn't list: {list(self.classes)}")
                patient = row[self.patient_column] if self.patient_column else ""
                mask = re.search(self.file_pattern, row[self.mask_column]) if self.mask_column else None
                before = table.get(match.group(1), Listed(None, patient, ()))
                labels = [label for label in (before.label, self.classes[value]) if label is not None]
                masks = dict.fromkeys([*before.mask_cases, *([mask.group(1)] if mask else [])])
                table[match.group(1)] = Listed(max(labels, default=None), before.patient, tuple(masks))
        return table

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        if found.class_label in (None, UNLABELLED):
            raise ReadError(found.path, f"no row of {self.tables} is about {found.case!r}",
                            "Correct the data set's `file_pattern`, or move the image away")
        path, spacing = self.relative(found.path), None
        names = ScanNames(found.name, found.name, path)
        if is_dicom(found.path):
            volume, header = read_dicom_image(found.path)
            channels = (volume,) * (3 if self.colour == "rgb" else 1)
            names, spacing = anonymous_names(found.name, path, header.patient, header.names, salt), header.spacing_mm
        else:
            channels = read_image_channels(found.path, self.colour)
        spacing = spacing or self.spacing_mm
        if spacing is None:
            raise ReadError(found.path, "has no pixel spacing", "Give the data set's `spacing_mm`")
        patient_id = names.patient_id
        if self.patient_column:
            patient_id = salted_hash(found.patient, salt)
        elif self.patient:
            patient_id = salted_hash(patient_in(path, self.patient, found.path), salt)
        return Scan(scan_id=names.scan_id, patient_id=patient_id, source_file=names.source_file, channels=channels,
                    spacing_mm=(*spacing, 1.0), lesion=self._read_masks(found, channels[0]),
                    class_label=found.class_label, image_digest=file_digest(found.path))

    def _read_masks(self, found: FoundScan, image: Volume) -> Mask | None:
        """The union of an image's masks; None where it has none. Raises ReadError for one that isn't there.

        The files beside a mask are told from it by their size: CBIS-DDSM's tables exchange mask and crop in some rows.
        """
        layers: list[tuple[np.ndarray, None]] = []
        for case in found.mask_cases if isinstance(found, Mammogram) else ():
            assert self.masks is not None
            paths = find_label_files(found.path, case, Path(self.root), [self.masks], several=True)
            read = [_read_labels(path) for path in paths]
            fitting = [labels for labels in read if labels.shape == image.stored.shape]
            if not fitting:
                own, *sizes = ("x".join(map(str, each.shape[1:])) for each in (image.stored, *read))
                raise ReadError(found.path, f"has {own} pixels, the files of its mask {case} {', '.join(sizes)}",
                                "Get the mask of the image's size, or move the image away")
            layers += [(labels, None) for labels in fitting]
        return Mask(tuple(layers)) if layers else None

    def identifying_words(self, found: FoundScan) -> Sequence[str]:
        return sorted(set(words_in_header(found.path)))


def _read_labels(path: Path) -> np.ndarray:
    """(1,R,C) of a mask file or of a crop beside it, DICOM or a picture; 0 is no lesion."""
    volume = read_dicom_image(path)[0] if is_dicom(path) else read_image_channels(path, "grey")[0]
    return volume.stored

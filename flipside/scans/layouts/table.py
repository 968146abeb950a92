"""Scans, slices and pictures that a table lists, one in each row, with their labels: NIfTI, DICOM and pictures."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pydantic

from flipside.core.store import RGB
from flipside.scans.labels import Ignored
from flipside.scans.layout import (
    ClassName,
    DatasetError,
    FoundScan,
    Label,
    Layout,
    Spacing,
    check_patients,
)
from flipside.scans.pictures import ColourMode
from flipside.scans.row_reader import Reading, Row, parse_spacing, read_row, words_of_row
from flipside.scans.scan import UNLABELLED, Scan
from flipside.scans.tables import read_table

Part = Literal["train", "val", "test"]
FIRST_ROW = 2  # as a spreadsheet counts, below the columns' names
SHOWN = 3  # examples in an error
LISTS = Path(__file__).parents[1] / "lists"  # which scans of a public data set are used


@dataclass(frozen=True, kw_only=True)
class ListedScan(FoundScan):
    """A scan with its row of the table."""

    row: Row


class Table(Layout):
    layout: Literal["table"]
    table: str
    """CSV or Parquet file under the root, with a row for each scan, slice or picture. A file that isn't there is looked
    for in `flipside/scans/lists`: choices of scans among public data sets that come with Flipside."""
    path_column: str = "path"
    """Column with the scan's path below the root: a NIfTI volume, a folder or file of DICOM, or a picture."""
    path_pattern: str = "{path}"
    """The path, where the column holds only a part of it, such as `images/{path}.png`."""
    image_columns: list[str] = []
    """Columns with further volumes on the same grid, which become further channels."""
    colour: ColourMode = "grey"
    """Of pictures: `grey`: one channel, the luma of a colour picture (ITU-R BT.601); `rgb`: three channels."""
    label_column: str = "label"
    """Column with the label of the whole scan or image. Empty: unknown; the scan is left out, unless it has a mask."""
    classes: dict[ClassName, Label | None] = {"0": 0, "1": 1}
    """Its values -> 0 healthy, 1 abnormal, null left out."""
    patient_column: str = "patient"
    """Column with the patient, of whom only a salted hash is kept. Empty, or no such column: the DICOM header's
    patient, else every row is a patient."""
    split_column: str = "split"
    """Column with the part in which a scan stands where the data set brings its own split, see filter.use_given_split.
    """
    splits: dict[str, Part] = {"train": "train", "val": "val", "test": "test"}
    """Its values -> train, val, test."""
    site_column: str = "site"
    """Column with the hospital or scanner at which a scan was taken. The contact sheet counts classes by site: a site
    with one class only is a shortcut for a classifier."""
    slice_column: str = "slice"
    """Column with the number of the slice that a picture is of its patient's scan. COIN-Aligned and flip_mask compare
    slices of about the same height; without numbers, pictures of any height."""
    mask_column: str = "mask"
    """Column with the path of the lesion's mask, or of several, with `;` between them. Empty: no lesion. With a mask,
    the slices of a volume are labelled by it instead of by the volume's label."""
    mask_values: list[int] | None = None
    """Values of the mask that are lesion; null: every value but 0."""
    organ_column: str = "organ"
    """Column with the path of the organ's mask, as that of the lesion's, or `nonzero`: every pixel but 0."""
    organ_values: list[int] | None = None
    """Values of the organ's mask that are organ; null: every value but 0."""
    ignored: Ignored = []
    """Values of masks that are neither; `any`: all values may occur. Otherwise a value that nothing names is refused
    where `mask_values` or `organ_values` lists some."""
    spacing_column: str = "spacing"
    """Column with the height and width of a pixel in mm, `0.7x0.7` or one number, for files that don't tell."""
    spacing_mm: Spacing = (1.0, 1.0)
    """Height and width of a pixel in mm where neither file nor table says; [1, 1] where unknown: mm in the results are
    then pixels."""

    @pydantic.model_validator(mode="after")
    def _path_in_pattern(self) -> Table:
        if "{path}" not in self.path_pattern:
            raise ValueError(f"`path_pattern` is {self.path_pattern!r}, expected {{path}} in it")
        return self

    def volume_names(self, volumes: int) -> list[str]:
        columns = [self.path_column, *self.image_columns]
        if self.colour == "rgb" and volumes == len(RGB) * len(columns):
            return [*RGB] if len(columns) == 1 else [f"{column} {name}" for column in columns for name in RGB]
        return columns if volumes > 1 else super().volume_names(volumes)

    def find_scans(self, dataset: str) -> list[FoundScan]:
        records = self._read(dataset).to_dict("records")
        rows = [self._row(dataset, number, cells) for number, cells in enumerate(records, start=FIRST_ROW)]
        self._refuse_missing(dataset, rows)
        self._refuse_repeated(rows)
        self._check_patients(dataset, rows)
        names = _names([row.path for row in rows], Path(self.root))
        found: list[FoundScan] = [
            ListedScan(name, row.path, name, row.label, row.split, row.patient, row=row)
            for name, row in sorted(zip(names, rows, strict=True), key=lambda pair: pair[1].path)]
        self.refuse_equal_names(dataset, found)
        return found

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        assert isinstance(found, ListedScan)
        organ, mask = (None if values is None else tuple(values) for values in (self.organ_values, self.mask_values))
        how = Reading(Path(self.root), self.colour, self.spacing_mm, organ, mask, self.ignored)
        return read_row(found.name, found.row, how, salt)

    def identifying_words(self, found: FoundScan) -> Sequence[str]:
        return words_of_row(found.path)

    @functools.cached_property
    def file(self) -> Path:
        """The table: under the root, else among Flipside's own lists."""
        there, own = Path(self.root) / self.table, LISTS / self.table
        return own if own.is_file() and not there.is_file() else there

    def _read(self, dataset: str) -> pd.DataFrame:
        """The table as text. Raises DatasetError where it, a column that the block names, or every row is missing."""
        file = self.file
        if file.parent == LISTS:  # the list comes with Flipside, the scans don't
            self.existing_root(dataset)
        if not file.is_file():
            raise DatasetError(f"{file} not found: put the data set there, or correct `root` and `table` of "
                               f"datasets.{dataset}{self.source and '. It is available' + self.source}")
        table = read_table(file)
        named = {key: getattr(self, key) for key in self.model_fields_set if key.endswith("_column")}
        wanted = {"path_column": self.path_column} | named
        wanted |= {f"image_columns[{i}]": name for i, name in enumerate(self.image_columns)}
        for key, column in wanted.items():
            if column not in table:
                raise DatasetError(f"{file} has no column {column!r}, which datasets.{dataset}.{key} names; it has "
                                   f"{list(table.columns)}")
        self._refuse_other_capitals(dataset, file, [name for name in table if (table[name] != "").any()])
        if self.label_column not in table and self.mask_column not in table and not self.anomalies:
            raise DatasetError(f"{file} has neither labels nor masks: no column {self.label_column!r} and none "
                               f"{self.mask_column!r}; it has {list(table.columns)}. Name it in "
                               f"datasets.{dataset}.label_column")
        if table.empty:
            raise DatasetError(f"{file} has no row below its columns' names")
        return table

    def _refuse_other_capitals(self, dataset: str, file: Path, columns: Sequence[str]) -> None:
        """Raises DatasetError for a column such as `Patient`, which would count as absent."""
        for key, name in ((key, getattr(self, key)) for key in type(self).model_fields if key.endswith("_column")):
            alike = [column for column in columns if column.lower() == name.lower()]
            if alike and name not in alike:
                raise DatasetError(f"{file} has the column {alike[0]!r}, but datasets.{dataset}.{key} is {name!r}: set "
                                   "it to the column's name, or rename the column")

    def _row(self, dataset: str, number: int, cells: dict[str, str]) -> Row:
        """What a row says. Raises DatasetError, with row and column, for what it can't say."""
        def cell(column: str) -> str:
            return cells.get(column, "")

        def refuse(column: str, found: str, expected: str) -> DatasetError:
            return DatasetError(f"{self.file}, row {number}, column {column!r}: found {found!r}, "
                                f"expected {expected}")

        path, label, part = cell(self.path_column), cell(self.label_column), cell(self.split_column)
        if label not in self.classes:
            label = re.sub(r"\.0+$", "", label)  # 1.0, as tables have it in which some labels are unknown
        if not path:
            raise refuse(self.path_column, path, "the path of a scan")
        if label and label not in self.classes:
            raise refuse(self.label_column, label, f"one of {list(self.classes)} (datasets.{dataset}.classes), or "
                         "nothing where the label is unknown")
        if part and part not in self.splits:
            raise refuse(self.split_column, part, f"one of {list(self.splits)} (datasets.{dataset}.splits)")
        number_text = cell(self.slice_column)
        if not re.fullmatch(r"-?\d*", number_text):
            raise refuse(self.slice_column, number_text, f"a slice's number (datasets.{dataset}.slice_column)")
        spacing = parse_spacing(cell(self.spacing_column))
        if spacing is None and cell(self.spacing_column):
            raise refuse(self.spacing_column, cell(self.spacing_column), "mm as 0.7x0.7 or one number above 0")
        root, organ = Path(self.root), cell(self.organ_column)
        image = root / self.path_pattern.replace("{path}", path)
        masks = _paths(root, cell(self.mask_column))
        organs: tuple[Path, ...] | Literal["nonzero"] = "nonzero" if organ == "nonzero" else _paths(root, organ)
        for column in self.image_columns:
            if not cell(column):
                raise refuse(column, "", "the path of a further volume on the same grid (image_columns)")
        more = tuple(root / cell(column) for column in self.image_columns)
        for column, paths in ((self.path_column, (image,)), *zip(self.image_columns, ((one,) for one in more),
                                                                 strict=True),
                              (self.mask_column, masks), (self.organ_column, () if organs == "nonzero" else organs)):
            outside = [one for one in paths if not _is_below(one, root)]
            if outside:
                raise refuse(column, cell(column), f"a path below {root}, where DVC watches the files, without `..`. "
                             "Copy or link the file there")
        with_masks = self.mask_column in cells
        unlabelled = UNLABELLED if masks or self.anomalies or (with_masks and self.label_column not in cells) else None
        return Row(
            place=f"{self.file}, row {number}", path=_as_on_disk(image), more=tuple(map(_as_on_disk, more)),
            label=self.classes[label] if label else unlabelled, patient=cell(self.patient_column),
            split=self.splits[part] if part else "", site=cell(self.site_column),
            slice_number=int(number_text) if number_text else None,
            masks=tuple(map(_as_on_disk, masks)),
            organs="nonzero" if organs == "nonzero" else tuple(map(_as_on_disk, organs)), spacing_mm=spacing)

    def _refuse_missing(self, dataset: str, rows: Sequence[Row]) -> None:
        """Raises DatasetError for paths at which nothing is, with the first three and their number."""
        files = []
        for row in rows:
            organs = () if row.organs == "nonzero" else row.organs
            files += [(row.place, self.path_column, row.path), *zip([row.place] * len(row.more), self.image_columns,
                                                                    row.more, strict=True)]
            files += [(row.place, self.mask_column, path) for path in row.masks]
            files += [(row.place, self.organ_column, path) for path in organs]
        missing = [one for one in files if not one[2].exists()]
        if missing:
            told = "; ".join(f"{place}, column {column!r}: {path}" for place, column, path in missing[:SHOWN])
            raise DatasetError(f"{len(missing)} of {len(files)} paths lead nowhere, expected files below {self.root}; "
                               f"the first: {told}. Correct the table, datasets.{dataset}.root or "
                               f"datasets.{dataset}.path_pattern"
                               + (", and write / instead of \\" if "\\" in str(missing[0][2]) else ""))

    def _refuse_repeated(self, rows: Sequence[Row]) -> None:
        seen: dict[Path, Row] = {}
        for row in rows:
            first = seen.setdefault(row.path, row)
            if first is not row:
                raise DatasetError(f"{row.place}, column {self.path_column!r}: found {self.relative(row.path)}, which "
                                   f"stands in {first.place} too, expected each scan once. Remove one of the lines")

    def _check_patients(self, dataset: str, rows: Sequence[Row]) -> None:
        """Raises DatasetError for one patient of everybody's, and for a patient in two given splits."""
        if any(row.patient for row in rows):
            check_patients(dataset, "patient_column", [row.patient for row in rows])
        first_of: dict[str, Row] = {}
        for row in rows:
            first = first_of.setdefault(row.patient, row)
            if row.patient and row.split != first.split:
                raise DatasetError(f"{row.place}, column {self.split_column!r}: found {row.split!r}, but {first.place} "
                                   f"has the same patient in {first.split!r}, expected one part for all scans of a "
                                   "patient. Correct the split, or leave the column out")


def _paths(root: Path, cell: str) -> tuple[Path, ...]:
    """Paths with `;` between them."""
    return tuple(root / part.strip() for part in cell.split(";") if part.strip())


def _is_below(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and ".." not in path.relative_to(root).parts


def _as_on_disk(path: Path) -> Path:
    """The path in the Unicode form that its name has on the disk: tables are read in NFC, macOS writes NFD."""
    decomposed = Path(unicodedata.normalize("NFD", str(path)))
    return decomposed if not path.exists() and decomposed.exists() else path


def _names(paths: Sequence[Path], root: Path) -> list[str]:
    """Names of scans: those of their files where no two are alike, else the whole paths with _ between the parts, with
    the files' endings where these alone differ."""
    def bare(path: Path) -> str:
        return path.name if path.is_dir() else path.name.removesuffix(".gz").rpartition(".")[0] or path.name

    names = [bare(path) for path in paths]
    if max(Counter(names).values()) == 1:
        return names
    whole = ["_".join((*path.relative_to(root).parts[:-1], name)) for path, name in zip(paths, names, strict=True)]
    twice = Counter(whole)
    return ["_".join(path.relative_to(root).parts) if twice[name] > 1 else name
            for path, name in zip(paths, whole, strict=True)]

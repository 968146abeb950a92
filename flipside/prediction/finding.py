"""The scans that a user names: files, folders, DICOM studies, a table; found first, read one by one.

A folder is looked at as the run's own data set where that has organ labels or several volumes per scan, else for DICOM
series, NIfTI volumes and pictures, wherever they lie in it. Lesion masks are never opened.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flipside.core.params import ParamsError
from flipside.core.store import RGB
from flipside.masks.placing import safe_name
from flipside.prediction.trained import TrainedRun
from flipside.scans.dicom_grouping import files_below, find_volumes, only_volume, seems_dicom
from flipside.scans.dicom_header import Header, read_header, read_headers
from flipside.scans.endings import PICTURES, TABLES
from flipside.scans.layout import DatasetError, FoundScan, Layout
from flipside.scans.layouts.dicom_series import DicomSeries, FoundSeries
from flipside.scans.layouts.table import Table
from flipside.scans.patterns import masks_among, readable, split_ending
from flipside.scans.privacy import without_names
from flipside.scans.readers import ReadError
from flipside.scans.row_reader import (
    Reading,
    Row,
    is_dicom_path,
    is_nifti_path,
    parse_spacing,
    read_row,
    words_of_row,
)
from flipside.scans.scan import UNLABELLED, Scan
from flipside.scans.tables import TableError, need_columns, read_table

OF_ITS_OWN = "is no slice of a volume"  # what a header says of mammograms and X-rays


@dataclass(frozen=True)
class ReadScan:
    """A scan, what is to be said of it, and the headers of its frames where it is DICOM."""

    scan: Scan
    warnings: tuple[str, ...] = ()
    frames: Callable[[], Sequence[Header]] | None = None


@dataclass(frozen=True)
class NewScan:
    """A scan that was found; reading it may fail. It can be pickled, to be read in another process."""

    name: str  # unique among all, can stand in a file's name, without a patient's name
    file: str  # as the user named it, without a patient's name
    source: str  # digest of the path, to know the scan again
    words: Sequence[str]  # identifying words, to keep them out of messages
    read: Callable[[], ReadScan]

    def without_names(self, text: str, salt: str) -> str:
        return without_names(text, self.words, salt)


@dataclass(frozen=True)
class _Found:
    name: str
    path: Path
    part: str  # what tells it apart from others in the same file or folder
    words: Sequence[str]
    read: Callable[[], ReadScan]


@dataclass(frozen=True)
class _How:
    """How files that stand for themselves are read."""

    run: TrainedRun

    @property
    def salt(self) -> str:
        return self.run.extract.patient_salt

    @property
    def table(self) -> Table:
        """The run's columns where its data set is a table, else the usual ones."""
        block = self.run.block
        if isinstance(block, Table):
            return block
        further = block.volume_names(self.run.volumes)[1:] if tuple(self.run.channels) != RGB else []
        return Table.model_validate({"layout": "table", "root": ".", "table": "", "image_columns": further,
                                     "colour": self.colour})

    @property
    def colour(self) -> Literal["grey", "rgb"]:
        return getattr(self.run.block, "colour", "rgb" if tuple(self.run.channels) == RGB else "grey")

    def row(self, path: Path, root: Path, place: str = "", more: tuple[Path, ...] = (),
            organs: tuple[Path, ...] | Literal["nonzero"] = (), spacing: tuple[float, float] | None = None) -> _Found:
        """A scan in one file or folder (or in several on one grid); root: the folder from which on it is named."""
        path, organs = path.absolute(), organs if self.run.organ_rule is None else self.run.organ_rule
        row = Row(place or str(path), path, more, UNLABELLED, "", "", "", None, (), organs, spacing)
        values = self.table.organ_values
        how = Reading(Path(path.anchor), self.colour, getattr(self.run.block, "spacing_mm", None) or (1.0, 1.0),
                      None if values is None else tuple(values), None, "any")
        name, inside = path.name if path.is_dir() else split_ending(path.name)[0], path.is_relative_to(root)
        bare = readable("_".join([*(path.relative_to(root).parts[:-1] if inside else ()), name]))
        return _Found(bare, path, "", words_of_row(path) if path.exists() else (),
                      functools.partial(_read_row, bare, row, how, self.salt))


def _read_row(name: str, row: Row, how: Reading, salt: str) -> ReadScan:
    if not row.path.exists():
        raise ReadError(row.path, "not found", "Correct the table or the path")
    scan = read_row(name, row, how, salt)
    return ReadScan(scan, frames=(lambda: _frames(row.path)) if is_dicom_path(row.path) else None)


def find_new_scans(paths: Sequence[Path], tables: Sequence[Path], run: TrainedRun, out: Path) -> list[NewScan]:
    """Every scan below the paths and in the tables, in their order, each once, but for what lies in `out`.

    Raises ParamsError for a path at which nothing is, and where no scan is found. What can't be read is found out when
    it is read.
    """
    how = _How(run)
    found: list[_Found] = []
    folders = [path for path in paths if path.is_dir()]
    for path in paths:
        if not path.exists():
            raise ParamsError(f"{path} not found: name files, folders or tables of scans that are there")
        if path.is_dir():
            of_folder = list(_in_folder(path, how))
            found += of_folder if len(folders) == 1 else [
                replace(one, name="_".join([readable(path.resolve().name), one.name])) for one in of_folder]
        elif path.suffix.lower() in TABLES:
            found += _in_table(path, how)
        else:
            found.append(how.row(path, path.parent.absolute()))
    for table in tables:
        found += _in_table(table, how)
    once: dict[tuple[Path, str], _Found] = {}
    for one in found:
        if one.path.resolve().is_relative_to(out.resolve()):
            continue
        once.setdefault((one.path.resolve(), one.part), one)
    if not once:
        raise ParamsError(f"{', '.join(map(str, [*paths, *tables]))}: no scan found, expected NIfTI, DICOM or pictures")
    return _named([*once.values()], how.salt)


def _named(found: Sequence[_Found], salt: str) -> list[NewScan]:
    """Equal names get six digits that stand for the path, so that they don't depend on what else was named."""
    names = [safe_name(without_names(one.name, one.words, salt)).strip("._") or "scan" for one in found]
    twice = Counter(name.lower() for name in names)
    scans = []
    for name, one in zip(names, found, strict=True):
        source = hashlib.sha256(f"{one.path.resolve()} {one.part}".encode()).hexdigest()
        name = f"{name}_{source[:6]}" if twice[name.lower()] > 1 else name
        file = without_names(readable(str(one.path)), one.words, salt)
        scans.append(NewScan(name, file, source, one.words, one.read))
    return scans


def _in_table(file: Path, how: _How) -> list[_Found]:
    """The rows of a table; paths are relative to its folder. Labels and masks in it are not looked at."""
    columns, root = how.table, file.parent.absolute()
    if not file.is_file():
        raise ParamsError(f"{file} not found: --table names a CSV or Parquet file")
    table = read_table(file)
    need_columns(file, table, [columns.path_column, *columns.image_columns])
    found = []
    for number, cells in enumerate(table.to_dict("records"), start=2):
        place, spacing = f"{file}, row {number}", cells.get(columns.spacing_column, "")
        if not cells[columns.path_column]:
            raise TableError(f"{place}: no path in column {columns.path_column!r}")
        if spacing and parse_spacing(spacing) is None:
            raise TableError(f"{place}, column {columns.spacing_column!r}: found {spacing!r}, expected mm as 0.7x0.7")
        organ = cells.get(columns.organ_column, "")
        organs: tuple[Path, ...] | Literal["nonzero"] = "nonzero" if organ == "nonzero" else tuple(
            root / part.strip() for part in organ.split(";") if part.strip())
        path = root / columns.path_pattern.replace("{path}", cells[columns.path_column])
        found.append(how.row(path, root, place, tuple(root / cells[column] for column in columns.image_columns),
                             organs, parse_spacing(spacing)))
    return found


def _in_folder(folder: Path, how: _How) -> Iterator[_Found]:
    own = _as_own_data_set(folder, how)
    if own:
        yield from own
        return
    files = files_below(folder)
    pictures = [file for file in files if file.name.lower().endswith(PICTURES)]
    volumes = [file for file in files if is_nifti_path(file)]
    masks = {mask for mask, _ in [*masks_among(pictures), *masks_among(volumes)]}
    if masks:
        print(f"{folder}: {len(masks)} files seem to be masks of others by their names and are left out, such as "
              f"{min(masks).name}")
    rest = set(files) - set(pictures) - set(volumes)
    if any(map(seems_dicom, rest)):
        yield from _dicom(folder, how)
    for file in sorted({*volumes, *pictures} - masks):
        yield how.row(file, folder.absolute())


def _as_own_data_set(folder: Path, how: _How) -> list[_Found]:
    """The scans of a folder whose files lie as those of the run's data set; none where they don't, or where a file
    alone says as much."""
    block = how.run.block
    if not hasattr(block, "lesion") or (not how.run.organ_expected and how.run.volumes == 1):
        return []
    unknown = {name: None for name in ("patient", "clean") if hasattr(block, name)}
    with_lesion = block.model_copy(update={"root": str(folder), **unknown})  # its patterns tell what is no scan
    try:
        found = with_lesion.find_scans(how.run.dataset)
    except DatasetError:
        return []
    layout = with_lesion.model_copy(update={"lesion": None})
    bare = layout.model_copy(update={"organ": how.run.organ_rule}) if how.run.organ_expected else layout
    return [_of_layout(one, layout, bare, folder, how) for one in found]


def _dicom(folder: Path, how: _How) -> Iterator[_Found]:
    """The series below a folder, and the DICOM images that are no slices, such as mammograms."""
    layout = DicomSeries.model_validate({"layout": "dicom_series", "root": str(folder)})
    alone: set[Path] = set()
    try:
        found, others = layout.find_scans_and_others(how.run.dataset)
    except DatasetError:
        found, others = [], []
        alone = set(files_below(folder))
    for one in found:
        yield _of_layout(one, layout, layout, folder, how)
    for other in others:
        if other.reason.reason.startswith(OF_ITS_OWN):
            alone |= {file for file in other.found.path.parent.iterdir() if file.is_file()}
        else:
            print(f"{folder}: left out, no scan: "
                  + without_names(f"{other.found.path.name} {other.reason.reason}",
                                  layout.identifying_words(other.found), how.salt))
    for file in sorted(alone):
        if seems_dicom(file) and _is_of_its_own(file):
            yield how.row(file, folder.absolute())


def _is_of_its_own(file: Path) -> bool:
    try:
        return read_header(file).no_volume.startswith(OF_ITS_OWN)
    except ReadError:
        return False


def _frames(path: Path) -> Sequence[Header]:
    """The headers of a DICOM image, or of the one volume in a file or folder."""
    if path.is_dir():
        return only_volume(path, find_volumes(filter(seems_dicom, files_below(path)))).headers
    headers = read_headers(path)
    return headers if len(headers) == 1 else only_volume(path, find_volumes([path])).headers


def _of_layout(found: FoundScan, layout: Layout, bare: Layout, folder: Path, how: _How) -> _Found:
    """A scan as a layout found it. `bare` reads it where its organ labels can't be used."""
    files, part = (tuple(found.volume.files), found.volume.part) if isinstance(found, FoundSeries) else ((), "")
    words = tuple(layout.identifying_words(found))
    if isinstance(found, FoundSeries) and not found.volume.fault:
        found = replace(found, volume=replace(found.volume, headers=()))  # read again in its turn: memory
    path = files[0] if len(files) == 1 else found.path
    name = found.name or readable(folder.resolve().name)
    read = functools.partial(_read_found, found, files, part, layout, None if bare is layout else bare, how.salt)
    return _Found(name, path, f"{part} {files[0].name if files else ''}".strip(), words, read)


def _read_found(found: FoundScan, files: tuple[Path, ...], part: str, layout: Layout, bare: Layout | None, salt: str
                ) -> ReadScan:
    again = _with_headers(found, files, part)
    headers = again.volume.headers if isinstance(again, FoundSeries) else ()
    frames = (lambda: headers) if headers else None
    try:
        return ReadScan(layout.read_scan(again, salt), frames=frames)
    except ReadError as error:
        if bare is None:
            raise
        return ReadScan(bare.read_scan(again, salt),  # which raises where the scan itself is bad
                        (f"organ labels not used: {error.reason}",), frames)


def _with_headers(found: FoundScan, files: tuple[Path, ...], part: str) -> FoundScan:
    """A series with its headers, which aren't kept while others are read."""
    if not isinstance(found, FoundSeries) or found.volume.fault:
        return found
    volumes = find_volumes(files).volumes
    fitting = [volume for volume in volumes if len(volumes) == 1 or volume.part == part]
    return replace(found, volume=fitting[0]) if fitting else found

"""Which DICOM files belong together: volumes by series, then by what tells the volumes of one series apart.

A series often holds more than one volume: two acquisitions, phases at the same positions, several echoes. They are
told apart by what their headers say, never by guessing from the order of the files; what no header tells apart is
refused where it is read.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.misc import is_dicom

from flipside.core.files import file_digest
from flipside.scans.dicom_header import LEAVE_OUT, SEPARATORS, Header, NoScanError, read_headers, words_in_header
from flipside.scans.dicom_placing import (
    SAME_MM,
    PlacedHeader,
    differing_grids,
    heights_along_normal,
    place,
    sort_along_normal,
)
from flipside.scans.readers import ReadError

SUFFIXES = (".dcm", ".dicom", ".ima")
FIRST_TAGS = [struct.pack("<HH", *tag) for tag in ((2, 0), (8, 0), (8, 1), (8, 5), (8, 8), (8, 0x16), (8, 0x18))]
ALWAYS = ("acquisition", "stack", "echo", "temporal position", "energy", "b-value")  # the others only tell apart slices
# at the same position, since they may vary within a volume


@dataclass(frozen=True)
class DicomVolume:
    """Frames that make one volume, or that should and don't (`fault`)."""

    headers: tuple[Header, ...]
    part: str = ""  # what tells it apart from other volumes of its series: "acquisition 2"
    fault: ReadError | None = None

    @property
    def files(self) -> list[Path]:
        return sorted({header.path for header in self.headers} or {Path(self.fault.file) if self.fault else Path()})

    @property
    def series(self) -> str:
        """Eight hexadecimal digits that stand for the series: its UID, hashed."""
        first = self.headers[0] if self.headers else None
        return hashlib.sha256((first.series or str(first.path)).encode() if first else b"").hexdigest()[:8]


@dataclass(frozen=True)
class FoundVolumes:
    """What the files hold: volumes, and what is no scan by what it is."""

    volumes: list[DicomVolume]
    left_out: list[NoScanError]
    names: tuple[str, ...]  # identifying words of all headers, to keep them out of messages


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted, none hidden; links to folders are followed, each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        found += [] if real in seen else [Path(where, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(found)


def seems_dicom(path: Path) -> bool:
    """Whether a file is DICOM, or should be by its suffix or by a first element without the preamble."""
    if is_dicom(path) or path.suffix.lower() in SUFFIXES:
        return True
    with open(path, "rb") as file:
        return file.read(4) in FIRST_TAGS


def find_volumes(files: Iterable[Path]) -> FoundVolumes:
    """The volumes that DICOM files hold, in the order of their first files. Nothing is raised: what can't be read is a
    volume with a fault."""
    series: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    faulty: list[DicomVolume] = []
    left_out: list[NoScanError] = []
    names: set[str] = set()
    for path in files:
        try:
            headers = read_headers(path)
            if headers[0].no_volume:
                raise NoScanError(path, headers[0].no_volume, LEAVE_OUT)
        except NoScanError as error:
            left_out.append(error)
            names |= set(words_in_header(path))
        except ReadError as error:
            faulty.append(DicomVolume((), fault=error))
            names |= set(words_in_header(path))
        else:
            names |= set(headers[0].names)
            key = (headers[0].patient, headers[0].series or str(path.parent))
            series[key] += [header for header in headers if not header.no_volume]
    volumes = list(faulty)
    for headers in series.values():
        kept, copies = _without_copies(headers)
        left_out += copies
        volumes += split_series(kept)
    return FoundVolumes(sorted(volumes, key=lambda volume: volume.files[0]), left_out, tuple(sorted(names)))


def _without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[NoScanError]]:
    """Without files that are byte for byte another one of the series."""
    by_instance: dict[str, set[Path]] = defaultdict(set)
    for header in headers:
        by_instance[header.instance].add(header.path)
    originals: dict[str, Path] = {}
    copies: dict[Path, Path] = {}
    for path in sorted(path for paths in by_instance.values() if len(paths) > 1 for path in paths):
        original = originals.setdefault(file_digest(path), path)
        if original != path:
            copies[path] = original
    return ([header for header in headers if header.path not in copies],
            [NoScanError(path, f"is a copy of {original.name}", LEAVE_OUT) for path, original in copies.items()])


def split_series(headers: Sequence[Header]) -> list[DicomVolume]:
    """The volumes of one series; frames that don't say where they lie make one with a fault."""
    grids: list[list[PlacedHeader]] = []
    try:
        for header in headers:
            placed = place(header)
            for grid in grids:
                if not differing_grids(grid[0], placed):
                    grid.append(placed)
                    break
            else:
                grids.append([placed])
    except ReadError as error:
        return [DicomVolume(tuple(headers), fault=error)]
    if len(grids) > 1 and min(map(len, grids)) == 1:  # no volume of its own: a damaged header among the others
        alone, *_, largest = sorted(grids, key=len)
        what = differing_grids(largest[0], alone[0])
        other = next((one for one in largest if one.path != alone[0].path), largest[0])
        return [DicomVolume(tuple(headers), fault=ReadError(
            alone[0].path, f"{len(headers)} slices of a series are of several {what}: this one differs from "
            f"{other.path.name}", "Give each series a folder of its own, or move the slice away"))]
    found = []
    for number, grid in enumerate(grids, start=1):
        which = f"grid {number}" if len(grids) > 1 else ""
        found += [replace(volume, part=f"{which} {volume.part}".strip()) for volume in _split(grid, tuple(SEPARATORS))]
    return found


def _split(placed: Sequence[PlacedHeader], separators: Sequence[str]) -> list[DicomVolume]:
    """Frames of one grid by the first of the separators that tells volumes apart, each again by the rest."""
    doubled = bool((np.diff(np.sort(heights_along_normal(placed))) < SAME_MM).any())
    for number, name in enumerate(separators):
        if not doubled and name not in ALWAYS:
            continue
        groups: dict[str, list[PlacedHeader]] = defaultdict(list)
        for one in placed:
            groups[one.header.separators[list(SEPARATORS).index(name)]].append(one)
        if len(groups) > 1 and _apart(placed, list(groups.values())):
            return [replace(volume, part=f"{name} {value} {volume.part}".strip()) for value, group in groups.items()
                    for volume in _split(group, separators[number + 1:])]
    folders: dict[Path, list[PlacedHeader]] = defaultdict(list)
    for one in placed:
        folders[one.path.parent].append(one)
    if doubled and len(folders) > 1 and all(map(_is_even, folders.values())):
        return [DicomVolume(tuple(one.header for one in group), f"folder {folder.name}")
                for folder, group in folders.items()]
    return [DicomVolume(tuple(one.header for one in placed))]


def _apart(placed: Sequence[PlacedHeader], groups: Sequence[Sequence[PlacedHeader]]) -> bool:
    """Whether groups of a grid's frames are volumes of their own: they reach into each other, or leave gaps between
    them. Groups that continue each other, slice by slice or block by block, make one volume (step and shoot); a group
    of one slice is no volume, but a reason why the whole is none."""
    if min(map(len, groups)) == 1:
        return False
    ends = sorted((float(heights.min()), float(heights.max())) for heights in map(heights_along_normal, groups))
    disjoint = all(before[1] + SAME_MM < after[0] for before, after in zip(ends, ends[1:], strict=False))
    return not (disjoint and _is_even(placed)) and (not disjoint or all(map(_is_even, groups)))


def _is_even(placed: Sequence[PlacedHeader]) -> bool:
    try:
        sort_along_normal(placed)
    except ReadError:
        return False
    return True


def only_volume(where: Path, found: FoundVolumes) -> DicomVolume:
    """The one volume found in a folder or file. Raises ReadError for none or several, and where it has a fault."""
    if not found.volumes:
        first = f": {found.left_out[0].file} {found.left_out[0].reason}" if found.left_out else ""
        raise ReadError(where, f"holds no DICOM series of slices{first}", "Name the folder that holds one")
    faults = [volume.fault for volume in found.volumes if volume.fault]
    if faults:
        raise faults[0]
    if len(found.volumes) > 1:
        parts = ", ".join(f"{len(volume.headers)} slices from {volume.files[0].name}"
                          + (f" ({volume.part})" if volume.part else "") for volume in found.volumes[:4])
        raise ReadError(where, f"holds {len(found.volumes)} volumes, expected one: {parts}",
                        "Give each series or acquisition a folder of its own")
    return found.volumes[0]

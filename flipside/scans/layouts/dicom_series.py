"""Volumes as DICOM files anywhere below a folder, with the labels of organ and lesion as NIfTI files on their grids."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flipside.scans.dicom import read_frames
from flipside.scans.dicom_grouping import DicomVolume, FoundVolumes, files_below, find_volumes, seems_dicom
from flipside.scans.dicom_header import LEAVE_OUT
from flipside.scans.labels import Ignored, LabelFiles, read_volume_masks
from flipside.scans.layout import DatasetError, FoundScan, Layout, LeftOut
from flipside.scans.patterns import compile_pattern
from flipside.scans.privacy import anonymous_names
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan


@dataclass(frozen=True)
class FoundSeries(FoundScan):
    """A volume, or a file that is none, with the headers read while it was found."""

    volume: DicomVolume = DicomVolume(())
    names: tuple[str, ...] = ()  # identifying words of the headers around it


class DicomSeries(Layout):
    layout: Literal["dicom_series"]
    series: str | None = None
    """Pattern of the folders, with {case}; null: the files are found wherever they lie below `root`. Either way they
    are grouped by SeriesInstanceUID, and by what tells the volumes of one series apart (acquisition, echo, …)."""
    files: str = "*"
    """Pattern of a series' files in its folder (capitals or not); with `series` alone."""
    organ: LabelFiles | None = None
    """Labels of the organ as NIfTI files on the series' grid, patterns from the root; null: no labels. {case} is what
    it stood for in `series`, else the scan's name: the path of its folder with _ between the names."""
    lesion: LabelFiles | None = None
    """Labels of the lesions, as those of the organ; null: no labels."""
    ignored: Ignored = []
    """Label values that are neither organ nor lesion; `any`: all values may occur. Otherwise a value that nothing names
    is refused."""

    def find_scans(self, dataset: str) -> list[FoundScan]:
        return self.find_scans_and_others(dataset)[0]

    def find_scans_and_others(self, dataset: str) -> tuple[list[FoundScan], list[LeftOut]]:
        scans: list[FoundScan] = []
        others: list[LeftOut] = []
        if self.series is None:
            root = self.existing_root(dataset)
            found = find_volumes(filter(seems_dicom, files_below(root)))
            for name, volume in zip(_names(found.volumes, root), found.volumes, strict=True):
                scans.append(FoundSeries(name, _place(volume.files), name, volume=volume, names=found.names))
            others += _others(found)
        else:
            for folder, groups in self.match_files(dataset, self.series, folders=True):
                found, case = self._find_in(folder), groups["case"]
                for volume in found.volumes:
                    name = "_".join([case, *_part(volume, found.volumes)])
                    scans.append(FoundSeries(name, folder, case, volume=volume, names=found.names))
                others += _others(found)
        if not scans:
            first = f"; the first of {len(others)} files left out: {others[0].reason}" if others else ""
            raise DatasetError(f"{self.root} holds no DICOM series of slices: check datasets.{dataset}, or get the "
                               f"data set{self.source}{first}")
        self.refuse_equal_names(dataset, scans)
        return scans, others

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        assert isinstance(found, FoundSeries)
        volume, header = read_frames(found.volume)
        organ, lesion = read_volume_masks(found.path, found.case, Path(self.root), (self.organ, self.lesion),
                                          self.ignored, volume.geometry)
        names = anonymous_names(found.name, self.relative(found.path), header.patient, header.names, salt)
        return Scan(scan_id=names.scan_id, patient_id=names.patient_id, source_file=names.source_file,
                    channels=(volume,), spacing_mm=volume.geometry.slice_spacing_mm, organ=organ, lesion=lesion)

    def identifying_words(self, found: FoundScan) -> Sequence[str]:
        assert isinstance(found, FoundSeries)
        return found.names

    def _find_in(self, folder: Path) -> FoundVolumes:
        """The volumes in a folder that `series` names; one fault among them is the whole folder's."""
        pattern = re.compile(compile_pattern(self.files, {}).pattern, re.IGNORECASE)
        there = files_below(folder)
        files = [file for file in there if pattern.fullmatch(file.relative_to(folder).as_posix())]
        if not files:
            missing = ReadError(folder, f"holds no file that matches {self.files!r}", "Correct the data set's `files`")
            return FoundVolumes([DicomVolume((), fault=missing)], [], ())
        found = find_volumes(files)
        fault = next((volume.fault for volume in found.volumes if volume.fault), None) or self._unmatched(
            found, [file for file in there if file not in set(files) and seems_dicom(file)])
        return replace(found, volumes=[DicomVolume((), fault=fault)]) if fault else found

    def _unmatched(self, found: FoundVolumes, rest: Sequence[Path]) -> ReadError | None:
        """The error where files that `files` doesn't match are of a series that it matches in part."""
        series = {header.series for volume in found.volumes for header in volume.headers}
        missed = [volume for volume in find_volumes(rest).volumes
                  if any(header.series in series for header in volume.headers)]
        if not missed:
            return None
        names = [file.name for volume in missed for file in volume.files]
        return ReadError(missed[0].files[0], f"is of the same series as files that match {self.files!r}, and doesn't "
                         f"({len(names)} files: {', '.join(names[:4])})", "Correct the data set's `files`")


def _others(found: FoundVolumes) -> list[LeftOut]:
    """What is no scan by what it is: the first file of each folder and reason stands for the others."""
    reasons = Counter((Path(error.file).parent, error.reason) for error in found.left_out)
    firsts = {(Path(error.file).parent, error.reason): Path(error.file) for error in reversed(found.left_out)}
    return [LeftOut(FoundSeries(path.name, path, "", names=found.names), ReadError(
                path, reason + (f"; so are {count - 1} more files of its folder" if count > 1 else ""), LEAVE_OUT))
            for (folder, reason), count in reasons.items() for path in [firsts[folder, reason]]]


def _names(volumes: Sequence[DicomVolume], root: Path) -> list[str]:
    """Names of the volumes: the path of the folder (or single file) that holds one and no other, else with eight digits
    that stand for its series and with what tells it apart in there."""
    folders = Counter(folder for volume in volumes for folder in {file.parent for file in volume.files})
    files = Counter(file for volume in volumes for file in volume.files)
    names: list[list[str]] = []
    for volume in volumes:
        place = _place(volume.files)
        if place.is_file():
            alone, path = files[place] == 1, place.relative_to(root).with_suffix("")
        else:
            alone, path = place != root and folders[place] == 1, place.relative_to(root)
        names.append([*path.parts, *([] if alone else _part(volume, volumes))])
    twice = Counter("_".join(name) for name in names)
    return ["_".join([*name, volume.series] if twice["_".join(name)] > 1 else name)
            for name, volume in zip(names, volumes, strict=True)]


def _part(volume: DicomVolume, others: Sequence[DicomVolume]) -> list[str]:
    """What tells a volume apart from others, in words that can stand in a name."""
    part = re.sub(r"[^\w.]+", "_", volume.part)
    return [*([volume.series] if len({other.series for other in others}) > 1 else []), *([part] if part else [])]


def _place(files: Sequence[Path]) -> Path:
    """The file, or the folder that holds all of several."""
    return files[0] if len(files) == 1 else Path(os.path.commonpath([file.parent for file in files]))

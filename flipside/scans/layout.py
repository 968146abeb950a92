"""What a layout must offer: the keys of its block under `datasets`, how its scans are found and how one is read.

Each layout is one file in `layouts/` with one subclass of `Layout`; nothing else names it.
"""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pydantic

from flipside.core.params import Params
from flipside.scans.patterns import almost_matching, compile_pattern, glob_pattern, readable
from flipside.scans.readers import ReadError
from flipside.scans.scan import UNLABELLED, Scan

Label = Literal[0, 1]
Modality = Literal["ct", "mr", "xray", "mammography", "ultrasound", "other"]
Spacing = tuple[Annotated[float, pydantic.Field(gt=0)], Annotated[float, pydantic.Field(gt=0)]]


def _valid_regex(value: str | None) -> str | None:
    try:
        if value is not None and re.compile(value).groups != 1:
            raise ValueError("expected a regular expression with one group ( ), the patient's id")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _class_name(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("yes, no, on and off without quotation marks are true and false in YAML: write \"no\"")
    return str(value) if isinstance(value, int) else value


Regex = Annotated[str, pydantic.AfterValidator(_valid_regex)]
ClassName = Annotated[str, pydantic.BeforeValidator(_class_name)]  # 0 and 1 too, as tables and folders have them


class DatasetError(ValueError):
    """A data set that is not where, or not what, its block under `datasets` says."""


@dataclass(frozen=True)
class FoundScan:
    """One scan or image of a data set, not read yet."""

    name: str  # unique: what the pattern's placeholders stood for
    path: Path  # the image, or the folder of a series
    case: str  # what {case} stood for
    class_label: int | None = UNLABELLED  # None: of a class that is left out
    given_split: str = ""  # train or test where the data set brings its own split
    patient: str = ""  # as the data set's table names it


class LeftOut(NamedTuple):
    """A file that is no scan of the data set."""

    found: FoundScan
    reason: ReadError


class Layout(Params, abc.ABC):
    """One block of `datasets`. A subclass adds its own keys, among them `layout`, a Literal of its file's name."""

    root: str
    """Folder of the data set. DVC watches `data/raw/<name of the block>`: put the data there or link them there
    (`ln -s`)."""
    page: str = ""
    """Where the data set is available, such as its web page; error messages name it."""
    modality: Modality = "other"
    """`ct`: values are Hounsfield units, so that air is known where there are no organ labels. The others differ in
    the window that is right for them; `other`: any grey values."""
    anomalies: bool = False
    """Whether synthetic anomalies are drawn on the slices; for healthy data sets."""
    lesion_threshold_px: int = pydantic.Field(0, ge=0)
    """A slice is abnormal with strictly more lesion pixels than this on its native grid."""
    plane: Literal["axial", "coronal", "sagittal", "native"] = "axial"
    """Plane in which volumes are cut into slices; `native`: across the axis with the coarsest spacing, so that slices
    have the highest resolution."""
    context: int = pydantic.Field(default=0, ge=0)
    """Neighbouring slices on each side that become channels of a slice (2.5D), from the lowest; 0: the slice alone."""

    @abc.abstractmethod
    def find_scans(self, dataset: str) -> list[FoundScan]:
        """Every scan of the data set, sorted by path; `dataset`: the block's name, for messages.

        Raises DatasetError where the folder, a class or a split is missing, naming the folder and the page.
        """

    def find_scans_and_others(self, dataset: str) -> tuple[list[FoundScan], list[LeftOut]]:
        """`find_scans`, and what lies among the scans but is none by what it is, for the manifest."""
        return self.find_scans(dataset), []

    @abc.abstractmethod
    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        """Read one scan with its masks. `salt` is hashed with names that come from a DICOM header.

        Raises ReadError for anything that can't be read right.
        """

    def channel_names(self, volumes: int) -> list[str]:
        """Names of a slice's channels in order, of a data set with so many registered volumes per scan."""
        names = self.volume_names(volumes)
        offsets = range(-self.context, self.context + 1)
        return [f"{name}{offset:+d}" if offset else name for offset in offsets for name in names]

    def volume_names(self, volumes: int) -> list[str]:
        """Names of a scan's registered volumes."""
        return ["image"] if volumes == 1 else [f"channel {number}" for number in range(1, volumes + 1)]

    @property
    def has_clean_images(self) -> bool:
        """Whether every scan comes with the image without what was simulated on it (`Scan.clean`)."""
        return False

    def identifying_words(self, found: FoundScan) -> Sequence[str]:
        """Words in the scan's headers that tell whose it is, to keep them out of messages about it."""
        return ()

    @property
    def source(self) -> str:
        """Where to get the data set, for the end of a sentence; "" where the block doesn't say."""
        return f" from {self.page}" if self.page else ""

    def relative(self, path: Path) -> str:
        """A path below the data set's root, with slashes, as text that can be written."""
        return readable(path.relative_to(self.root).as_posix())

    def existing_root(self, dataset: str) -> Path:
        """The data set's folder. Raises DatasetError where it is missing."""
        root = Path(self.root)
        if not root.is_dir():
            raise DatasetError(f"{root} not found: put the data set there or set datasets.{dataset}.root to its "
                               f"folder.{f' It is available{self.source}' if self.page else ''}")
        return root

    def find_by_pattern(self, dataset: str, pattern: str, folders: bool = False) -> list[FoundScan]:
        """Every file (or folder) that matches the pattern as a scan, named by {case}. Raises DatasetError."""
        found = [FoundScan(readable(groups["case"]), path, groups["case"])
                 for path, groups in self.match_files(dataset, pattern, folders=folders)]
        self.refuse_equal_names(dataset, found)
        return found

    def match_files(self, dataset: str, pattern: str, names: Mapping[str, Sequence[str]] | None = None,
                    folders: bool = False) -> list[tuple[Path, dict[str, str]]]:
        """Every file (or folder) that matches the pattern, sorted, with what its placeholders stand for.

        `names`: what {class} and {split} may be. Raises DatasetError where there is no folder or no match.
        """
        root = self.existing_root(dataset)
        if "{case}" not in pattern:
            raise DatasetError(f"datasets.{dataset}: pattern {pattern!r} must contain {{case}}")
        expression = compile_pattern(pattern, names or {})
        matches = [(path, match.groupdict()) for path in glob_pattern(root, pattern)
                   if (match := expression.fullmatch(path.relative_to(root).as_posix())) and path.is_dir() == folders]
        almost = [] if folders else almost_matching(root, pattern, [path for path, _ in matches])
        told = (f"{len(almost)} files match but for their ending, the first is {self.relative(almost[0])}"
                if almost else "")
        if not matches:
            raise DatasetError(f"{root} holds nothing that matches {pattern!r}{told and f' ({told})'}: check "
                               f"datasets.{dataset}, or get the data set{self.source}")
        if told:
            print(f"datasets.{dataset}: {len(matches)} files match {pattern!r}; {told}, and these are left out")
        return matches

    def refuse_equal_names(self, dataset: str, found: Sequence[FoundScan]) -> None:
        """Raises DatasetError where two scans have the same name."""
        seen: dict[str, FoundScan] = {}
        for scan in found:
            if scan.name in seen:
                raise DatasetError(f"{seen[scan.name].path} and {scan.path} are both named {scan.name!r}: make the "
                                   f"pattern of datasets.{dataset} tell them apart")
            seen[scan.name] = scan


def refuse_linked_folders(dataset: str, watched: Path) -> None:
    """Raises DatasetError where a folder below `watched` is a link: DVC looks behind that folder's own link and links
    to files, but not behind others, so that changes there would make no slice stale."""
    for parent, folders, _ in os.walk(watched):
        links = sorted(name for name in folders if (Path(parent) / name).is_symlink())
        if links:
            link = Path(parent) / links[0]
            raise DatasetError(f"datasets.{dataset}: {readable(str(link))} is a link to a folder, behind which DVC "
                               f"doesn't look. Link {watched} itself to one folder, or link the files: `rm {link}; "
                               f"cp -rs {os.path.realpath(link)} {link}`")


def patient_in(text: str, pattern: str, path: Path) -> str:
    """The patient's id: the group of the regular expression `pattern` in a text. Raises ReadError without a match."""
    match = re.search(pattern, readable(text))
    if not match:
        raise ReadError(path, f"no patient in {text!r} by the pattern {pattern!r}", "Correct the data set's `patient`")
    return match.group(1)


def patients_in(texts: Sequence[str], pattern: str) -> list[str]:
    """`patient_in` of those texts that have a match."""
    return [readable(match.group(1)) for text in texts if (match := re.search(pattern, readable(text)))]


def check_patients(dataset: str, key: str, patients: Sequence[str]) -> None:
    """Raises DatasetError where several scans are all of one patient, or where two ids differ by a `.0` alone.

    patients: the id of each scan as the data set's names or tables have it; key: the block's key that they come from.
    """
    known = set(patients)
    if len(patients) > 1 and len(known) == 1:
        raise DatasetError(f"datasets.{dataset}.{key} gives one patient for all {len(patients)} scans, expected "
                           "several, as training and test need patients of their own. Correct it, or set it to null")
    doubled = sorted(patient for patient in known if re.fullmatch(r"\d+\.0+", patient)
                     and patient.split(".")[0] in known)
    if doubled:
        raise DatasetError(f"datasets.{dataset}.{key}: {doubled[0]} and {doubled[0].split('.')[0]} are most likely one "
                           "patient, whose number was written as a fraction in one place. Write both alike")

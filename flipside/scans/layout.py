"""What a layout must offer: the keys of its block under `datasets`, how its scans are found and how one is read.

Each layout is one file in `layouts/` with one subclass of `Layout`; nothing else names it.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from flipside.core.params import Params
from flipside.scans.patterns import compile_pattern, glob_pattern
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


Regex = Annotated[str, pydantic.AfterValidator(_valid_regex)]


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


class Layout(Params, abc.ABC):
    """One block of `datasets`. A subclass adds its own keys, among them `layout`, a Literal of its file's name."""

    root: str
    """Folder of the data set. DVC watches `data/raw/<name of the block>`: put the data there or link them there
    (`ln -s`)."""
    page: str
    """Web page on which the data set is available; error messages name it."""
    modality: Modality
    """`ct`: values are Hounsfield units, so that air is known where there are no organ labels. The others differ in
    the window that is right for them; `other`: any grey values."""
    anomalies: bool
    """Whether synthetic anomalies are drawn on the slices; for healthy data sets."""
    lesion_threshold_px: int = pydantic.Field(ge=0)
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

    def relative(self, path: Path) -> str:
        """A path below the data set's root, with slashes."""
        return path.relative_to(self.root).as_posix()

    def find_by_pattern(self, dataset: str, pattern: str, folders: bool = False) -> list[FoundScan]:
        """Every file (or folder) that matches the pattern as a scan, named by {case}. Raises DatasetError."""
        found = [FoundScan(groups["case"], path, groups["case"])
                 for path, groups in self.match_files(dataset, pattern, folders=folders)]
        self.refuse_equal_names(dataset, found)
        return found

    def match_files(self, dataset: str, pattern: str, names: Mapping[str, Sequence[str]] | None = None,
                    folders: bool = False) -> list[tuple[Path, dict[str, str]]]:
        """Every file (or folder) that matches the pattern, sorted, with what its placeholders stand for.

        `names`: what {class} and {split} may be. Raises DatasetError where there is no folder or no match.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise DatasetError(f"{root} not found: put the data set there or set datasets.{dataset}.root to its "
                               f"folder. It is available from {self.page}")
        if "{case}" not in pattern:
            raise DatasetError(f"datasets.{dataset}: pattern {pattern!r} must contain {{case}}")
        expression = compile_pattern(pattern, names or {})
        matches = [(path, match.groupdict()) for path in glob_pattern(root, pattern)
                   if (match := expression.fullmatch(self.relative(path))) and path.is_dir() == folders]
        if not matches:
            raise DatasetError(f"{root} holds nothing that matches {pattern!r}: check datasets.{dataset}, or get the "
                               f"data set from {self.page}")
        return matches

    def refuse_equal_names(self, dataset: str, found: Sequence[FoundScan]) -> None:
        """Raises DatasetError where two scans have the same name."""
        seen: dict[str, FoundScan] = {}
        for scan in found:
            if scan.name in seen:
                raise DatasetError(f"{seen[scan.name].path} and {scan.path} are both named {scan.name!r}: make the "
                                   f"pattern of datasets.{dataset} tell them apart")
            seen[scan.name] = scan


def patient_in(text: str, pattern: str, path: Path) -> str:
    """The patient's id: the group of the regular expression `pattern` in a text. Raises ReadError without a match."""
    match = re.search(pattern, text)
    if not match:
        raise ReadError(path, f"no patient in {text!r} by the pattern {pattern!r}", "Correct the data set's `patient`")
    return match.group(1)

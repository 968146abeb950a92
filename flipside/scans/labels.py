"""Masks of a scan's organ and lesion: which label files and values of a data set's block make them up."""

from __future__ import annotations

import glob
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pydantic

from flipside.core.params import Params
from flipside.scans.geometry import Geometry
from flipside.scans.patterns import glob_pattern
from flipside.scans.readers import ReadError, read_nifti_labels

Ignored = list[int] | Literal["any"]


class LabelFiles(Params):
    """A structure in a data set's label files."""

    files: list[str] = pydantic.Field(min_length=1)
    """Patterns of the label files, with {case}; the structure is their union."""
    values: list[int] | None = None
    """Label values that belong to the structure; null: every value but 0."""
    several: bool = False
    """Whether a pattern with `*` may match several files of a scan, which are then joined, as in `{case}_mask*.png`."""

    @property
    def decoding(self) -> str:
        """Equal where the same file gives the same labels, so that it is decoded once."""
        return ""


Files = TypeVar("Files", bound=LabelFiles)


@dataclass(frozen=True)
class Mask:
    """A structure of a scan: the union of label arrays, each with the values that belong to it (None: all but 0)."""

    layers: tuple[tuple[np.ndarray, tuple[int, ...] | None], ...]  # at least one; each array (Z,R,C)

    def slice(self, z: int) -> np.ndarray:
        """(R,C) bool of slice z."""
        hit: np.ndarray = np.zeros(self.layers[0][0].shape[1:], bool)
        for labels, values in self.layers:
            here = labels[z]
            for part in [here != 0] if values is None else [here == value for value in values]:
                hit = hit | part
        return hit


def read_masks(image: Path, case: str, root: Path, structures: Sequence[Files | None], ignored: Ignored,
               read: Callable[[Path, Files], np.ndarray]) -> list[Mask | None]:
    """A mask for each of the structures, None for None; each file is decoded once, also where it holds several.

    image: the scan, for messages. case: what {case} is in the patterns. ignored: label values that are in no structure
    ("any": all values may occur). read: labels (Z,R,C) of a file.
    Raises ReadError for a label file that is missing or ambiguous, or holds a value that nothing names.
    """
    labels: dict[tuple[Path, str], np.ndarray] = {}
    known: dict[tuple[Path, str], set[int] | None] = {}  # values that each file may hold; None: any
    masks: list[Mask | None] = []
    for structure in structures:
        if structure is None:
            masks.append(None)
            continue
        layers = []
        for path in find_label_files(image, case, root, structure.files, structure.several):
            key = (path, structure.decoding)
            if key not in labels:
                labels[key] = read(path, structure)
                known[key] = None if ignored == "any" else set(ignored)
            allowed, values = known[key], structure.values
            known[key] = None if values is None or allowed is None else allowed | set(values)
            layers.append((labels[key], None if values is None else tuple(values)))
        masks.append(Mask(tuple(layers)))
    for key, allowed in known.items():
        if allowed is not None:
            check_values(key[0], labels[key], allowed)
    return masks


def read_volume_masks(image: Path, case: str, root: Path, structures: Sequence[LabelFiles | None], ignored: Ignored,
                      geometry: Geometry) -> list[Mask | None]:
    """`read_masks` of NIfTI label files on the grid of a volume."""
    def read(path: Path, structure: LabelFiles) -> np.ndarray:
        return read_nifti_labels(path, geometry, image)
    return read_masks(image, case, root, structures, ignored, read)


def find_label_files(image: Path, case: str, root: Path, patterns: Sequence[str], several: bool = False) -> list[Path]:
    """The label files of a scan: one for each pattern, or with `several` at least one.

    Their names may have letters in another Unicode form than `case`.
    Raises ReadError where one is missing or ambiguous.
    """
    forms = dict.fromkeys([case, unicodedata.normalize("NFC", case), unicodedata.normalize("NFD", case)])
    paths = []
    for pattern in patterns:
        matches = [path for form in forms for path in glob_pattern(root, pattern.replace("{case}", glob.escape(form)))]
        if not matches or (len(matches) > 1 and not several):
            raise ReadError(image, f"{len(matches)} label files match {root / pattern.replace('{case}', case)}, "
                            f"expected {'at least ' if several else ''}one", "Get the data set's labels, or correct "
                            "its pattern in its block under `datasets` (`several: true` joins the files of a pattern)")
        paths += matches
    return paths


def check_values(path: Path, labels: np.ndarray, known: set[int]) -> None:
    """Refuse a label file that holds values (other than 0) beyond those the parameters name."""
    for plane in labels:
        present = plane[plane != 0]
        if len(present):
            strange = present[~np.isin(present, list(known))]
            if len(strange):
                raise ReadError(path, f"holds the label {strange[0]}, expected {sorted(known)}",
                                "Correct the values of organ and lesion in the data set's block, or name the label in "
                                "its `ignored`")

"""Pictures whose folder or file name says the class, and where the data set brings its own split, the part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pydantic

from flipside.core.files import file_digest
from flipside.scans.layout import (
    ClassName,
    DatasetError,
    FoundScan,
    Label,
    Regex,
    Spacing,
    check_patients,
    patient_in,
    patients_in,
)
from flipside.scans.patterns import compile_pattern, glob_pattern, readable
from flipside.scans.picture_layout import PictureLayout
from flipside.scans.pictures import read_image_channels
from flipside.scans.scan import UNLABELLED, Scan

Part = Literal["train", "val", "test"]


class ClassFolders(PictureLayout):
    layout: Literal["class_folders"]
    image: str
    """Pattern of the images, with {class} and {case}, and with {split} where `splits` lists any."""
    classes: dict[ClassName, Label] = pydantic.Field(min_length=1)
    """Name of each class -> 0 healthy, 1 abnormal; images of other classes are left out. Both kinds are needed, but in
    a part of a joined data set."""
    splits: dict[str, Part] = {}
    """Name of each part -> train, val or test, where the data set brings its own split; {}: it brings none."""
    patient: Regex | None = None
    """Regular expression whose group in {case} is the patient; null: every image is a patient."""
    spacing_mm: Spacing = (1.0, 1.0)
    """Height and width of a pixel in mm, which pictures don't tell; [1, 1] where unknown: mm in the results are then
    pixels."""

    @pydantic.model_validator(mode="after")
    def _placeholders(self, info: pydantic.ValidationInfo) -> ClassFolders:
        if set(self.classes.values()) != {0, 1} and not (info.context or {}).get("part"):
            raise ValueError("`classes` must name a healthy (0) and an abnormal (1) class")
        if "{class}" not in self.image or ("{split}" in self.image) != bool(self.splits):
            raise ValueError("`image` must contain {class}, and {split} where and only where `splits` lists folders")
        return self

    def find_scans(self, dataset: str) -> list[FoundScan]:
        matches = self.match_files(dataset, self.image, {"class": list(self.classes), "split": list(self.splits)})
        self._check_complete(dataset, [groups for _, groups in matches])
        self._refuse_other_capitals(dataset, [path for path, _ in matches])
        found = [FoundScan("_".join(readable(groups[key]) for key in ("split", "class", "case") if key in groups), path,
                           groups["case"], self.classes[groups["class"]],
                           self.splits[groups["split"]] if "split" in groups else "")
                 for path, groups in matches]
        self.refuse_equal_names(dataset, found)
        if self.patient:
            check_patients(dataset, "patient", patients_in([scan.case for scan in found], self.patient))
        return found

    def _check_complete(self, dataset: str, matches: Sequence[dict[str, str]]) -> None:
        """Raises DatasetError for a class without an image and a split without its second part."""
        counts = {name: sum(groups["class"] == name for groups in matches) for name in self.classes}
        for name, count in counts.items():
            if count == 0:
                raise DatasetError(f"{Path(self.root)}: class {name!r} of datasets.{dataset}.classes has no image; "
                                   f"images: {counts}. Correct `classes` or get the whole data set{self.source}")
        parts = {self.splits[groups["split"]] for groups in matches if "split" in groups}
        if parts and not {"train", "test"} <= parts:
            raise DatasetError(f"{Path(self.root)}: images only in the {' and '.join(sorted(parts))} part, expected "
                               f"folders {list(self.splits)}; correct datasets.{dataset}.splits")

    def _refuse_other_capitals(self, dataset: str, matched: Sequence[Path]) -> None:
        """Raises DatasetError for a folder such as `NORMAL` beside `normal`: its images would be left out unsaid."""
        root, names = Path(self.root), {"class": list(self.classes), "split": list(self.splits)}
        loose = re.compile(compile_pattern(self.image, names).pattern, re.IGNORECASE)
        rest = sorted(set(glob_pattern(root, self.image)) - set(matched))
        alike = [path for path in rest if (match := loose.fullmatch(path.relative_to(root).as_posix()))
                 and not all(match[key] in names[key] for key in match.groupdict() if key in names) and path.is_file()]
        if alike:
            raise DatasetError(f"{root}: {len(alike)} images lie in folders that differ from those in "
                               f"datasets.{dataset}.classes or splits by capitals alone, the first "
                               f"is {self.relative(alike[0])}. List these folders too, or rename them")

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        return Scan(
            scan_id=found.name,
            patient_id=patient_in(found.case, self.patient, found.path) if self.patient else found.name,
            source_file=self.relative(found.path), channels=read_image_channels(found.path, self.colour),
            spacing_mm=(*self.spacing_mm, 1.0),
            class_label=UNLABELLED if found.class_label is None else found.class_label,
            given_split=found.given_split, image_digest=file_digest(found.path))

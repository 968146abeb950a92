"""How a data set lies on disk: one block of `datasets` per data set, one model per layout, and the files they name.

File names are patterns: `*`, `?` and `[abc]` match within one name as in a shell; `{case}` matches as little as it can
of one name and is the scan's name, the same wherever it stands again; `{class}` and `{split}` match the names listed
under `classes` and `splits`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from flipside.core.params import Params
from flipside.scans.readers import ReadError

Label = Literal[0, 1]
Part = Literal["train", "test"]
Channel = tuple[Annotated[int, pydantic.Field(ge=0, le=255)], Annotated[int, pydantic.Field(ge=0, le=255)]]
Spacing = tuple[Annotated[float, pydantic.Field(gt=0)], Annotated[float, pydantic.Field(gt=0)]]


class DatasetError(ValueError):
    """A data set that is not where, or not what, its block in params.yaml says."""


def _valid_regex(value: str | None) -> str | None:
    try:
        if value is not None and re.compile(value).groups != 1:
            raise ValueError("expected a regular expression with one group ( ), the patient's id")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


Regex = Annotated[str, pydantic.AfterValidator(_valid_regex)]


class VolumeMask(Params):
    files: list[str] = pydantic.Field(min_length=1)
    """Patterns of NIfTI label files; the structure is their union."""
    values: list[int] | None
    """Labels that belong to the structure; null: every value but 0."""


class ImageMask(Params):
    files: list[str] = pydantic.Field(min_length=1)
    """Patterns of mask images; the structure is their union."""
    values: list[int] | None
    """Grey values that belong to the structure; null: every value but 0."""
    colours: list[tuple[Channel, Channel, Channel]] | None
    """Or ranges of R, G and B (both ends included); null: grey."""

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> ImageMask:
        if self.values is not None and self.colours is not None:
            raise ValueError("give `values` or `colours`, and null for the other")
        return self


class Block(Params):
    root: str
    """Folder of the data set."""
    page: str
    """Where to get it."""
    modality: Literal["ct", "other"]
    """Ct: values are Hounsfield units, so air is known where there are no organ labels."""
    anomalies: bool
    """Healthy data set on which synthetic anomalies are drawn."""
    lesion_threshold_px: int = pydantic.Field(ge=0)
    """A slice is abnormal with strictly more lesion pixels, native grid."""


class NiftiCases(Block):
    layout: Literal["nifti_cases"]
    image: str
    """Pattern of the volumes, with {case}."""
    organ: VolumeMask | Literal["nonzero"] | None
    """Nonzero: every voxel but 0 (skull-stripped brain); null: no labels."""
    lesion: VolumeMask | None
    """Null: no lesion labels."""
    ignored: list[int] | Literal["any"]
    """Labels that are neither; a label that nobody names is refused."""
    patient: Regex | None
    """Its group in {case} is the patient; null: every case is a patient."""


class DicomSeries(Block):
    layout: Literal["dicom_series"]
    series: str
    """Pattern of folders with one series each, with {case}."""
    files: str
    """Pattern of the series' files in its folder."""
    organ: VolumeMask | None
    """NIfTI on the series' grid, pattern from the root; null: no labels."""
    lesion: VolumeMask | None
    ignored: list[int] | Literal["any"]
    """As in nifti_cases."""


class ImageMasks(Block):
    layout: Literal["image_mask"]
    image: str
    """Pattern of the images, with {case}."""
    organ: ImageMask | None
    """Null: no labels."""
    lesion: ImageMask | None
    ignored: list[int] | Literal["any"]
    """Grey values that are neither."""
    patient: Regex | None
    """Its group in {case} is the patient; null: every image is a patient."""
    spacing_mm: Spacing
    """Of a pixel, row and column: images don't tell; [1, 1] where unknown, then mm mean pixels."""


class ClassFolders(Block):
    layout: Literal["class_folders"]
    image: str
    """Pattern of the images, with {class} and {case}, and with {split} where `splits` lists any."""
    classes: dict[str, Label] = pydantic.Field(min_length=2)
    """Class name -> 0 healthy, 1 abnormal."""
    splits: dict[str, Part]
    """Folder name -> train or test, where the data set brings its own split; {}: it doesn't."""
    patient: Regex | None
    """Its group in {case} is the patient; null: every image is a patient."""
    spacing_mm: Spacing
    """As in image_mask."""

    @pydantic.model_validator(mode="after")
    def _placeholders(self) -> ClassFolders:
        if set(self.classes.values()) != {0, 1}:
            raise ValueError("`classes` must name a healthy (0) and an abnormal (1) class")
        if "{class}" not in self.image or ("{split}" in self.image) != bool(self.splits):
            raise ValueError("`image` must contain {class}, and {split} where and only where `splits` lists folders")
        return self


class DicomBirads(Block):
    layout: Literal["dicom_birads"]
    image: str
    """Pattern of the images (DICOM, or PNG and the like), with {case}."""
    tables: list[str] = pydantic.Field(min_length=1)
    """CSV files under the root; an image in many rows is 1 if any is."""
    separator: str = pydantic.Field(min_length=1, max_length=1)
    """Of the CSV's columns."""
    file_column: str
    """Column that names the image."""
    file_pattern: Regex
    """Its group in that column is the image's {case}."""
    label_column: str
    """Column with the BI-RADS or pathology."""
    classes: dict[str, Label | None]
    """Its values -> 0 healthy, 1 abnormal, null left out."""
    patient_column: str | None
    """Column with the patient's id; null: from `patient`."""
    patient: Regex | None
    """Its group in the image's path is the patient; null: from the DICOM header."""
    spacing_mm: Spacing | None
    """For images without one of their own; null: refuse those."""


AnyBlock = Annotated[
    NiftiCases | DicomSeries | ImageMasks | ClassFolders | DicomBirads, pydantic.Field(discriminator="layout")]


class DatasetParams(pydantic.RootModel[AnyBlock]):
    """One block of `datasets`."""

    model_config = pydantic.ConfigDict(frozen=True)


class DatasetsParams(pydantic.RootModel[dict[str, AnyBlock]]):
    """The section `datasets`: name -> block."""

    model_config = pydantic.ConfigDict(frozen=True)


@dataclass(frozen=True)
class Case:
    """One scan or image of a data set, not read yet."""

    name: str  # unique; its path without the pattern's fixed ends
    path: Path  # the image, or the folder of a series
    case: str  # what {case} stood for
    class_name: str = ""
    split: str = ""  # train or test where the data set brings its own split


def find_cases(dataset: str, block: Block) -> list[Case]:
    """Every scan of a data set, sorted by path.

    Raises DatasetError where the folder or any class or split is missing, naming the folder and the page.
    """
    root = Path(block.root)
    if not root.is_dir():
        raise DatasetError(f"{root} not found: put the data set there or set datasets.{dataset}.root to its folder. "
                           f"It is available from {block.page}")
    pattern = block.series if isinstance(block, DicomSeries) else block.image
    classes = list(block.classes) if isinstance(block, ClassFolders) else []
    splits = list(block.splits) if isinstance(block, ClassFolders) else []
    if "{case}" not in pattern:
        raise DatasetError(f"datasets.{dataset}: pattern {pattern!r} must contain {{case}}")
    expression = re.compile(_as_regex(pattern, {"class": classes, "split": splits}))
    found = []
    for path in _matching(root, pattern):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match and path.is_dir() == isinstance(block, DicomSeries):
            groups = match.groupdict()
            parts = [groups[key] for key in ("split", "class", "case") if key in groups]
            split = block.splits[groups["split"]] if "split" in groups else ""
            found.append(Case("_".join(parts), path, groups["case"], groups.get("class", ""), split))
    if not found:
        raise DatasetError(f"{root} holds nothing that matches {pattern!r}: check datasets.{dataset}, or get the data "
                           f"set from {block.page}")
    _check_complete(dataset, root, found, classes, splits, block.page)
    return found


def _check_complete(dataset: str, root: Path, found: list[Case], classes: list[str], splits: list[str], page: str
                    ) -> None:
    for name in classes:
        if not any(case.class_name == name for case in found):
            counts = {known: sum(case.class_name == known for case in found) for known in classes}
            raise DatasetError(f"{root}: class {name!r} of datasets.{dataset}.classes has no image; images: {counts}. "
                               f"Correct `classes` or get the whole data set from {page}")
    if splits and len({case.split for case in found}) < 2:
        raise DatasetError(f"{root}: images only in the {found[0].split} part, expected folders {splits}; correct "
                           f"datasets.{dataset}.splits")
    seen: dict[str, Case] = {}
    for case in found:
        if case.name in seen:
            raise DatasetError(f"{seen[case.name].path} and {case.path} are both named {case.name!r}: make the pattern "
                               f"of datasets.{dataset} tell them apart")
        seen[case.name] = case


def companions(root: Path, patterns: list[str], case: Case) -> list[Path]:
    """The label files of a case, one for each pattern. Raises ReadError where one is missing or ambiguous."""
    paths = []
    for pattern in patterns:
        filled = pattern.replace("{case}", case.case.replace("[", "[[]"))
        matches = _matching(root, filled)
        if len(matches) != 1:
            raise ReadError(case.path, f"{len(matches)} label files match {root / filled}, expected one",
                            "Get the data set's labels, or correct its pattern in params.yaml")
        paths.append(matches[0])
    return paths


def _matching(root: Path, pattern: str) -> list[Path]:
    loose = re.sub(r"\{(case|class|split)\}", "*", pattern)
    return sorted(path for path in root.glob(loose) if not path.name.startswith("."))


_WILDCARDS = {"*": "[^/]*", "?": "[^/]", "[": r"\["}


def _as_regex(pattern: str, names: dict[str, list[str]]) -> str:
    """Regular expression of a file pattern; placeholders become named groups, later ones refer to the first."""
    parts, seen = [], set()
    for piece in re.split(r"(\{case\}|\{class\}|\{split\})", pattern):
        key = piece[1:-1]
        if piece in seen:
            parts.append(f"(?P={key})")
        elif piece in ("{case}", "{class}", "{split}"):
            options = "|".join(map(re.escape, sorted(names.get(key, []), key=len, reverse=True)))
            parts.append(f"(?P<{key}>{options or '[^/]+?'})")
            seen.add(piece)
        else:
            parts += [_WILDCARDS.get(token, token if token.startswith("[") else re.escape(token))
                      for token in re.findall(r"[*?]|\[[^\]]*\]|[^*?\[]+|\[", piece)]
    return "".join(parts)

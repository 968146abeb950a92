"""Pictures (PNG, JPEG, TIFF), with the labels of organ and lesion as pictures of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic

from flipside.core.files import file_digest
from flipside.scans.geometry import Geometry
from flipside.scans.labels import Ignored, LabelFiles, Mask, find_label_files, read_masks
from flipside.scans.layout import FoundScan, Regex, Spacing, check_patients, patient_in, patients_in
from flipside.scans.picture_layout import PictureLayout
from flipside.scans.pictures import read_image, read_image_channels, read_image_labels
from flipside.scans.readers import ReadError, Volume
from flipside.scans.scan import Scan

Channel = tuple[Annotated[int, pydantic.Field(ge=0, le=255)], Annotated[int, pydantic.Field(ge=0, le=255)]]


class ImageMask(LabelFiles):
    """A structure in a data set's mask pictures."""

    colours: list[tuple[Channel, Channel, Channel]] | None = None
    """Ranges of R, G and B (both ends included) that belong to the structure, instead of `values`; null: grey masks."""

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> ImageMask:
        if self.values is not None and self.colours is not None:
            raise ValueError("give `values` or `colours`, and null for the other")
        return self

    @property
    def decoding(self) -> str:
        return str(self.colours)


class ImageMasks(PictureLayout):
    layout: Literal["image_mask"]
    image: str
    """Pattern of the images, with {case}."""
    organ: ImageMask | None = None
    """Labels of the organ; null: no labels."""
    lesion: ImageMask | None = None
    """Labels of the lesions; null: no labels."""
    ignored: Ignored = []
    """Grey values that are neither organ nor lesion; `any`: all values may occur. Otherwise a value that nothing names
    is refused."""
    patient: Regex | None = None
    """Regular expression whose group in {case} is the patient; null: every image is a patient."""
    spacing_mm: Spacing = (1.0, 1.0)
    """Height and width of a pixel in mm, which pictures don't tell; [1, 1] where unknown: mm in the results are then
    pixels."""
    clean: str | None = None
    """Pattern of the images without what was simulated on them, with {case}, for simulated data sets; null: there are
    none."""

    @pydantic.model_validator(mode="after")
    def _grey_where_clean(self) -> ImageMasks:
        if self.clean is not None and self.colour != "grey":
            raise ValueError("`clean` needs `colour: grey`")
        return self

    def find_scans(self, dataset: str) -> list[FoundScan]:
        found = self.find_by_pattern(dataset, self.image)
        if self.patient:
            check_patients(dataset, "patient", patients_in([scan.case for scan in found], self.patient))
        return found

    def mask_patterns(self) -> Sequence[str]:
        return [file for masks in (self.organ, self.lesion) if masks for file in masks.files if file != self.image]

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        channels = read_image_channels(found.path, self.colour)
        geometry = channels[0].geometry
        organ, lesion = self._masks(found, geometry)
        return Scan(
            scan_id=found.name,
            patient_id=patient_in(found.case, self.patient, found.path) if self.patient else found.name,
            source_file=self.relative(found.path), channels=channels, spacing_mm=(*self.spacing_mm, 1.0), organ=organ,
            lesion=lesion, image_digest=file_digest(found.path), clean=self._clean(found, geometry))

    @property
    def has_clean_images(self) -> bool:
        return self.clean is not None

    def _masks(self, found: FoundScan, geometry: Geometry) -> list[Mask | None]:
        def read(path: Path, structure: ImageMask) -> np.ndarray:
            return read_image_labels(path, geometry, found.path, structure.colours)
        return read_masks(found.path, found.case, Path(self.root), (self.organ, self.lesion), self.ignored, read)

    def _clean(self, found: FoundScan, geometry: Geometry) -> Volume | None:
        if self.clean is None:
            return None
        (path,) = find_label_files(found.path, found.case, Path(self.root), [self.clean])
        clean = read_image(path)
        if clean.geometry.shape != geometry.shape:
            raise ReadError(path, f"clean image of {clean.geometry.shape} pixels, its image has {geometry.shape}",
                            "Correct the data set's `clean`")
        return clean

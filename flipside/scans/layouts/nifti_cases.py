"""Volumes as NIfTI files, with the labels of organ and lesion as NIfTI files on the same grid."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from flipside.scans.labels import Ignored, LabelFiles, read_volume_masks
from flipside.scans.layout import DatasetError, FoundScan, Layout, Regex, check_patients, patient_in, patients_in
from flipside.scans.patterns import glob_pattern, labels_of_others, masks_among
from flipside.scans.readers import ReadError, read_registered
from flipside.scans.scan import Scan


class NiftiCases(Layout):
    layout: Literal["nifti_cases"]
    image: str | Annotated[list[str], pydantic.Field(min_length=1)]
    """Pattern of the volumes, with {case}; or several, of volumes on one grid that become the channels of a scan."""
    organ: LabelFiles | Literal["nonzero"] | None = None
    """Labels of the organ; `nonzero`: every voxel but 0 of the first volume (skull-stripped brain); null: none."""
    lesion: LabelFiles | None = None
    """Labels of the lesions; null: no labels."""
    ignored: Ignored = []
    """Label values that are neither organ nor lesion; `any`: all values may occur. Otherwise a value that nothing names
    is refused."""
    patient: Regex | None = None
    """Regular expression whose group in {case} is the patient; null: every case is a patient."""

    @property
    def patterns(self) -> list[str]:
        """One of the volumes of each channel."""
        return [self.image] if isinstance(self.image, str) else self.image

    def volume_names(self, volumes: int) -> list[str]:
        """What stands beside {case} in the patterns' last part (t1, t1ce), or the patterns where that is ambiguous."""
        names = [pattern.rsplit("/", 1)[-1].split(".", 1)[0].replace("{case}", "").strip("_-* ")
                 for pattern in self.patterns]
        if len(names) == 1:
            return super().volume_names(volumes)
        return names if all(names) and len(set(names)) == len(names) else self.patterns

    def find_scans(self, dataset: str) -> list[FoundScan]:
        found = self._without_labels(dataset, self.find_by_pattern(dataset, self.patterns[0]))
        if self.patient:
            check_patients(dataset, "patient", patients_in([scan.case for scan in found], self.patient))
        return found

    def _without_labels(self, dataset: str, found: list[FoundScan]) -> list[FoundScan]:
        """The cases but for label files that lie beside them. Raises DatasetError where a file only looks like one."""
        patterns = [file for structure in (self.organ, self.lesion) if isinstance(structure, LabelFiles)
                    for file in structure.files if file not in self.patterns and "{case}" in file]
        files = {scan.path.relative_to(self.root).as_posix(): scan for scan in found}
        labels = labels_of_others({file: scan.case for file, scan in files.items()}, patterns)
        kept = [scan for file, scan in files.items() if file not in labels]
        pairs = masks_among([scan.path for scan in kept])
        if pairs:
            first, image = (self.relative(path) for path in pairs[0])
            raise DatasetError(f"{self.root}: {len(pairs)} of {len(kept)} files that match {self.patterns[0]!r} seem "
                               f"to be labels, not scans: {first} beside {image}. Name them in "
                               f"datasets.{dataset}.lesion, or put them into a folder of their own")
        return kept

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        channels = read_registered([found.path, *(self._channel(found, pattern) for pattern in self.patterns[1:])])
        labelled = None if self.organ == "nonzero" else self.organ
        organ, lesion = read_volume_masks(found.path, found.case, Path(self.root), (labelled, self.lesion),
                                          self.ignored, channels[0].geometry)
        return Scan(
            scan_id=found.name,
            patient_id=patient_in(found.case, self.patient, found.path) if self.patient else found.name,
            source_file=self.relative(found.path), channels=channels, spacing_mm=channels[0].geometry.slice_spacing_mm,
            organ="nonzero" if self.organ == "nonzero" else organ, lesion=lesion)

    def _channel(self, found: FoundScan, pattern: str) -> Path:
        """The volume of another channel of a case. Raises ReadError where it is missing or ambiguous."""
        matches = glob_pattern(Path(self.root), pattern.replace("{case}", glob.escape(found.case)))
        if len(matches) != 1:
            raise ReadError(found.path, f"{len(matches)} volumes match {pattern.replace('{case}', found.case)}, "
                            "expected one", "Get all channels of the case, or correct the data set's `image`")
        return matches[0]

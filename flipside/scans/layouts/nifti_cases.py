"""Volumes as NIfTI files, with the labels of organ and lesion as NIfTI files on the same grid."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flipside.scans.labels import Ignored, LabelFiles, read_volume_masks
from flipside.scans.layout import FoundScan, Layout, Regex, check_patients, patient_in, patients_in
from flipside.scans.readers import read_nifti
from flipside.scans.scan import Scan


class NiftiCases(Layout):
    layout: Literal["nifti_cases"]
    image: str
    """Pattern of the volumes, with {case}."""
    organ: LabelFiles | Literal["nonzero"] | None = None
    """Labels of the organ; `nonzero`: every voxel but 0 of the volume (skull-stripped brain); null: no labels."""
    lesion: LabelFiles | None = None
    """Labels of the lesions; null: no labels."""
    ignored: Ignored = []
    """Label values that are neither organ nor lesion; `any`: all values may occur. Otherwise a value that nothing names
    is refused."""
    patient: Regex | None = None
    """Regular expression whose group in {case} is the patient; null: every case is a patient."""

    def find_scans(self, dataset: str) -> list[FoundScan]:
        found = self.find_by_pattern(dataset, self.image)
        if self.patient:
            check_patients(dataset, "patient", patients_in([scan.case for scan in found], self.patient))
        return found

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        volume = read_nifti(found.path)
        labelled = None if self.organ == "nonzero" else self.organ
        organ, lesion = read_volume_masks(found.path, found.case, Path(self.root), (labelled, self.lesion),
                                          self.ignored, volume.geometry)
        return Scan(
            scan_id=found.name,
            patient_id=patient_in(found.case, self.patient, found.path) if self.patient else found.name,
            source_file=self.relative(found.path), channels=(volume,), spacing_mm=volume.geometry.slice_spacing_mm,
            organ="nonzero" if self.organ == "nonzero" else organ, lesion=lesion)

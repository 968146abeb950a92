"""Volumes as folders with one DICOM series each, with the labels of organ and lesion as NIfTI files on its grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from flipside.scans.dicom import read_dicom_series, words_in_header
from flipside.scans.labels import Ignored, LabelFiles, read_volume_masks
from flipside.scans.layout import FoundScan, Layout
from flipside.scans.privacy import anonymous_names
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan


class DicomSeries(Layout):
    layout: Literal["dicom_series"]
    series: str = "{case}"
    """Pattern of the folders, with one series in each, with {case}."""
    files: str = "*"
    """Pattern of a series' files in its folder."""
    organ: LabelFiles | None = None
    """Labels of the organ as NIfTI files on the series' grid, patterns from the root; null: no labels."""
    lesion: LabelFiles | None = None
    """Labels of the lesions, as those of the organ; null: no labels."""
    ignored: Ignored = []
    """Label values that are neither organ nor lesion; `any`: all values may occur. Otherwise a value that nothing names
    is refused."""

    def find_scans(self, dataset: str) -> list[FoundScan]:
        return self.find_by_pattern(dataset, self.series, folders=True)

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        files = sorted(path for path in self._files(found) if not path.name.startswith(".") and path.name != "DICOMDIR")
        if not files:
            raise ReadError(found.path, f"holds no file that matches {self.files!r}", "Correct the data set's `files`")
        volume, header = read_dicom_series(files)
        organ, lesion = read_volume_masks(found.path, found.case, Path(self.root), (self.organ, self.lesion),
                                          self.ignored, volume.geometry)
        names = anonymous_names(found.name, self.relative(found.path), header.patient, header.names, salt)
        return Scan(scan_id=names.scan_id, patient_id=names.patient_id, source_file=names.source_file,
                    channels=(volume,), spacing_mm=volume.geometry.slice_spacing_mm, organ=organ, lesion=lesion)

    def identifying_words(self, found: FoundScan) -> Sequence[str]:
        return sorted({word for path in self._files(found) for word in words_in_header(path)})

    def _files(self, found: FoundScan) -> list[Path]:
        return [path for path in found.path.glob(self.files) if path.is_file()]

"""A scan's mask as DICOM-SEG and its attribution as a parametric map, beside the series that they belong to.

Both refer to the source images frame by frame, in their study and frame of reference. The patient is the source's: it
is copied on purpose, or left empty. The UIDs follow from the source, the models and the settings, so that the same
prediction made twice is the same object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from flipside.prediction.outputs import FULL, OnOwnGrid
from flipside.prediction.prepared import PreparedScan
from flipside.prediction.trained import TrainedRun
from flipside.scans.dicom_header import Header
from flipside.scans.dicom_placing import place, sort_along_normal
from flipside.scans.geometry import from_slices
from flipside.scans.privacy import IDENTIFYING

SEGMENTATION, PARAMETRIC_MAP = "segmentation.dcm", "attribution.dcm"
SERIES = {SEGMENTATION: 9100, PARAMETRIC_MAP: 9101}  # far from a scanner's own numbers
OF_THE_PATIENT_AND_VISIT = (0x0010, 0x0012, 0x0032, 0x0038)  # groups of DICOM tags; 0x0012: of a clinical trial
OF_THE_STUDY = ("StudyID", "StudyDescription", "IssuerOfAccessionNumberSequence", "ReferencedPatientSequence",
                "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianIdentificationSequence",
                "PhysiciansOfRecordIdentificationSequence", "PhysiciansReadingStudyIdentificationSequence")


def dicom_writer(run: TrainedRun, method: str, anonymise: bool) -> Callable[[Path, PreparedScan, OnOwnGrid], list[str]]:
    """What writes both objects of a scan into its folder and names them; nothing for a scan that is no DICOM."""
    settings = run.settings(method)

    def write(folder: Path, done: PreparedScan, whole: OnOwnGrid) -> list[str]:
        if done.frames is None:
            return []
        sources, order = _sources(done)
        maker = _Maker(method, settings, sources, order, anonymise)
        geometry = done.scan.volume.geometry

        def frames(slices: np.ndarray) -> np.ndarray:  # (Z,R,C) -> (K,R,C) in the order of the source's frames
            if geometry.is_image:
                return slices
            return np.ascontiguousarray(from_slices(slices, geometry).transpose(2, 1, 0))

        if maker.without_reference:
            done.warnings.append("the series has no FrameOfReferenceUID; the DICOM objects have one that follows from "
                                 "its UID")
        maker.segmentation(frames(whole.mask)).save_as(folder / SEGMENTATION)
        maker.parametric_map(frames(whole.attribution)).save_as(folder / PARAMETRIC_MAP)
        return [SEGMENTATION, PARAMETRIC_MAP]

    return write


def _sources(done: PreparedScan) -> tuple[list[pydicom.Dataset], np.ndarray]:
    """The source images without their pixels, and which of the scan's slices (along its own last axis) each frame of
    them is. Raises ValueError where the scan is only a part of a file."""
    assert done.frames is not None
    headers: Sequence[Header] = done.frames()
    if not done.scan.volume.geometry.is_image:
        headers = [placed.header for placed in sort_along_normal([place(header) for header in headers])[0]]
    paths = list(dict.fromkeys(header.path for header in headers))
    sources: list[pydicom.Dataset] = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    if len(paths) == len(headers):
        return sources, np.arange(len(headers))
    frames = {header.frame: k for k, header in enumerate(headers)}
    if len(paths) > 1 or sorted(frames) != list(range(headers[0].frames)):
        raise ValueError("the scan is a part of a multi-frame file, to whose frames no object can refer one by one")
    return sources, np.array([frames[frame] for frame in range(len(frames))])


class _Maker:
    """Both objects of one scan."""

    def __init__(self, method: str, settings: dict[str, Any], sources: list[pydicom.Dataset], order: np.ndarray,
                 anonymise: bool):
        self.method, self.sources, self.order, self.anonymise = method, sources, order, anonymise
        self.version = _version()
        self.settings = settings
        self.origin = [json.dumps(settings, sort_keys=True, default=str), self.version,
                       *(str(source.SOPInstanceUID) for source in sources)]
        self.without_reference = "FrameOfReferenceUID" not in sources[0] and "ImagePositionPatient" in sources[0]
        if self.without_reference:
            uid = generate_uid(entropy_srcs=["frame of reference", str(sources[0].SeriesInstanceUID)])
            for source in sources:
                source.FrameOfReferenceUID = uid

    def segmentation(self, mask: np.ndarray) -> highdicom.seg.Segmentation:
        """One segment, the lesion, of a mask (K,R,C) 0/1."""
        description = highdicom.seg.SegmentDescription(
            segment_number=1, segment_label="Lesion",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion, algorithm_type="AUTOMATIC",
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=f"Flipside {self.method}", family=codes.DCM.ArtificialIntelligence, version=self.version,
                parameters={"method": self.method, "threshold policy": str(self.settings["policy"]),
                            "models": self.models[:64]}))
        return self._without_names(highdicom.seg.Segmentation(
            self.sources, mask[self.order], "BINARY", [description], content_label="LESION",
            content_description=f"Lesion, Flipside {self.method}"[:64], **self._general(SEGMENTATION)))

    def parametric_map(self, levels: np.ndarray) -> highdicom.pm.ParametricMap:
        """The attribution (K,R,C) uint16, FULL stands for 1."""
        mapping = highdicom.pm.RealWorldValueMapping(
            lut_label="ATTRIBUTION", lut_explanation="share in the decision abnormal, 0 to 1",
            unit=codes.UCUM.NoUnits, value_range=(0, FULL), slope=1 / FULL, intercept=0.0)
        return self._without_names(highdicom.pm.ParametricMap(
            self.sources, levels[self.order], contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping], content_label="ATTRIBUTION",
            content_description=f"Attribution, Flipside {self.method}"[:64],
            voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=FULL / 2, window_width=FULL)],
            **self._general(PARAMETRIC_MAP)))

    @property
    def models(self) -> str:
        """Eight digits of each model's weights."""
        return " ".join(digest[:8] for name, digest in self.settings["models"].items() if "safetensors" in name)

    def _general(self, what: str) -> dict[str, Any]:
        return {
            "series_instance_uid": generate_uid(entropy_srcs=["series", what, *self.origin]),
            "sop_instance_uid": generate_uid(entropy_srcs=["instance", what, *self.origin]),
            "series_number": SERIES[what], "instance_number": 1, "manufacturer": "Flipside",
            "manufacturer_model_name": f"Flipside {self.method}", "software_versions": self.version,
            "device_serial_number": self.models,  # which weights: the only device there is
        }

    def _without_names(self, made: Any) -> Any:
        if self.anonymise:
            made.pop("ContributingEquipmentSequence", None)  # the scanner, with its institution and station
            for element in list(made):
                if (element.tag.group in OF_THE_PATIENT_AND_VISIT or element.VR == "PN"
                        or element.keyword in (*IDENTIFYING, *OF_THE_STUDY)):
                    if element.VR == "SQ" or element.tag.group == 0x0012:
                        del made[element.tag]
                    else:
                        element.value = None
        return made


def _version() -> str:
    try:
        return metadata.version("flipside")
    except metadata.PackageNotFoundError:  # run from its folder
        return "unknown"

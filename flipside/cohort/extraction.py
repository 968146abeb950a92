"""A data set's scans to slices: what is written to data/extracted."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pandas as pd
import pydantic

from flipside.cohort.slicing import ScanSlices, slice_scan
from flipside.core.files import write_json
from flipside.core.image_size import ImageSize
from flipside.core.packed_masks import pack
from flipside.core.params import Params
from flipside.core.progress import progress
from flipside.core.store import INDEX_COLUMNS
from flipside.scans.layout import FoundScan, Layout
from flipside.scans.privacy import without_names
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan

LATER = ("source_slice_id", "draw", "relative_height", "label", "split")  # what is known of slices only later
COLUMNS = [name for name in INDEX_COLUMNS if name not in LATER]


class ExtractError(ValueError):
    """A data set of which no slice is left."""


class ExtractParams(Params):
    """Section `extract`."""

    on_error: Literal["fail", "skip"]
    """What to do at a scan that can't be read: `fail` stops, `skip` goes on and lists it in the manifest."""
    foreground_samples: int = pydantic.Field(ge=1)
    """Number of intensities kept per scan, of which the fingerprint window is made."""
    patient_salt: str = pydantic.Field(min_length=1)
    """Text that is hashed with the patient id of a DICOM header, so that the id can't be guessed from its hash."""


class GrowingArray:
    """A .npy file whose first axis grows as scans are appended: a data set needn't fit in memory."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type):
        self.file: IO[bytes] = open(path, "wb")
        self.shape, self.dtype, self.count = shape, np.dtype(dtype), 0
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header, so that it keeps its length whatever the first axis is.
        descr = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.count, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, array: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(array, self.dtype).data)
        self.count += len(array)

    def close(self) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.close()


def extract(dataset: str, layout: Layout, params: ExtractParams, image_size: ImageSize, folder: Path) -> dict:
    """Write images, masks, tables, foreground samples and the manifest of a whole data set into `folder`.

    Images are (N,H,W), or (N,C,H,W) of several channels. Returns the manifest. Raises ReadError at the first bad scan
    (with `on_error: fail`), ExtractError where no slice remains, DatasetError where the data set is not what its
    layout's block says.
    """
    found_scans, others = layout.find_scans_and_others(dataset)
    labelled = [found for found in found_scans if found.class_label is not None]
    names = ["images", "organ", "lesion", *(["clean"] if layout.has_clean_images else [])]
    arrays: dict[str, GrowingArray] = {}  # made with the first scan, which tells the number of channels
    channels: list[str] = []
    planes: Counter[str] = Counter()
    index: list[dict] = []
    scans: list[dict] = []
    foreground: dict[str, np.ndarray] = {}
    left_out = [_without_label(found, layout, params.patient_salt) for found in found_scans
                if found.class_label is None]
    left_out += [_left_out(error, found, layout, params.patient_salt) for found, error in others]
    unread = 0
    without_organ: list[str] = []
    for found in progress(labelled, "extracting"):
        try:
            scan = layout.read_scan(found, params.patient_salt).in_plane(layout.plane)
            slices = slice_scan(scan, layout.modality, image_size, params.foreground_samples, layout.context)
            _refuse_other_channels(scan, slices, arrays)
        except ReadError as error:
            if params.on_error == "fail":
                raise
            left_out.append(_left_out(error, found, layout, params.patient_salt))
            unread += 1
            continue
        if not slices.index:
            without_organ.append(scan.source_file)
            continue
        for name in names:
            part: np.ndarray = getattr(slices, name)
            part = pack(part) if name in ("organ", "lesion") else part
            if name not in arrays:
                arrays[name] = GrowingArray(folder / f"{name}.npy", part.shape[1:], part.dtype)
            arrays[name].append(part)
        if not scan.volume.geometry.is_image:
            planes[scan.volume.geometry.plane] += 1
        channels = layout.channel_names(len(scan.channels))
        index += slices.index
        scans.append(slices.scan)
        foreground[scan.scan_id] = slices.foreground
    for array in arrays.values():
        array.close()
    class_left_out = len(found_scans) - len(labelled)
    if not index:
        first = f"; the first: {left_out[-unread]['file']}: {left_out[-unread]['reason']}" if unread else ""
        raise ExtractError(f"datasets.{dataset}: no slice left of {len(found_scans)} scans in {layout.root}: "
                           f"{len(without_organ)} have no organ in any slice, {class_left_out} have a class that is "
                           f"left out or unknown, {unread} can't be read{first}. "
                           + (f"Check `organ` under datasets.{dataset} and the files that it names" if without_organ
                              else f"Check the labels or classes of datasets.{dataset}" if class_left_out
                              else "Get these files again"))
    manifest = {
        "dataset": dataset, "anomalies": layout.anomalies, "lesion_threshold_px": layout.lesion_threshold_px,
        "modality": layout.modality, "left_out": left_out, "without_organ": without_organ,
        "channels": channels, "planes": dict(planes),
        "counts": {"found": len(found_scans), "scans": len(scans), "slices": len(index),
                   "patients": len({scan["patient_id"] for scan in scans}), "left_out": unread,
                   "without_organ": len(without_organ), "class_left_out": class_left_out},
    }
    pd.DataFrame(index)[[*COLUMNS, "lesion_px", "sha256", "class_label", "slice_number"]].to_csv(
        folder / "index.csv", index=False)
    pd.DataFrame(scans).to_csv(folder / "scans.csv", index=False)
    with zipfile.ZipFile(folder / "foreground.npz", "w") as archive:  # np.savez refuses some names of scans
        for name, values in foreground.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)
    write_json(folder / "manifest.json", manifest)
    return manifest


def _refuse_other_channels(scan: Scan, slices: ScanSlices, arrays: dict[str, GrowingArray]) -> None:
    """Raises ReadError for a scan with more or fewer channels than those before it."""
    if slices.index and arrays and slices.images.shape[1:] != arrays["images"].shape:
        found, expected = slices.images.shape[1:], arrays["images"].shape
        raise ReadError(scan.source_file, f"becomes slices of shape {found}, the scans before it of {expected}: it has "
                        "another number of channels", "Give every scan the same channels")


def _without_label(found: FoundScan, layout: Layout, salt: str) -> dict[str, str]:
    """The manifest's entry of a scan that counts neither as healthy nor as abnormal."""
    return {"file": without_names(layout.relative(found.path), layout.identifying_words(found), salt),
            "reason": "its label is unknown, or of a class that is left out"}


def _left_out(error: ReadError, found: FoundScan, layout: Layout, salt: str) -> dict[str, str]:
    """The manifest's entry of a scan that can't be read, without the data set's folder and without patients' names."""
    root, names = f"{Path(layout.root)}/", layout.identifying_words(found)
    return {"file": without_names(error.file.removeprefix(root), names, salt),
            "reason": without_names(error.reason.replace(root, ""), names, salt)}

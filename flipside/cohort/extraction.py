"""A data set's scans to slices: what is written to data/extracted."""

from __future__ import annotations

import functools
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pandas as pd
import pydantic

from flipside.cohort.slicing import slice_scan
from flipside.core.files import write_json
from flipside.core.image_size import ImageSize
from flipside.core.packed_masks import pack
from flipside.core.parallel import Result
from flipside.core.params import Params
from flipside.core.store import INDEX_COLUMNS
from flipside.scans.layout import FoundScan, Layout, LeftOut
from flipside.scans.privacy import without_names
from flipside.scans.readers import ReadError

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


@dataclass(frozen=True)
class FoundScans:
    """What a data set consists of, not read yet."""

    dataset: str
    layout: Layout
    all: list[FoundScan]
    others: list[LeftOut]  # files that are none

    @classmethod
    def of(cls, dataset: str, layout: Layout) -> FoundScans:
        """Raises DatasetError where the data set is not what its layout's block says."""
        return cls(dataset, layout, *layout.find_scans_and_others(dataset))

    @property
    def labelled(self) -> list[FoundScan]:
        """Those that become slices."""
        return [found for found in self.all if found.class_label is not None]

    def fingerprint(self) -> list[tuple[str, int, int]]:
        """Path, size and time of change of every file below the data set's root."""
        files = (Path(folder, name) for folder, _, names in os.walk(self.layout.root, followlinks=True)
                 for name in names)
        return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists())


def extract(dataset: str, layout: Layout, params: ExtractParams, image_size: ImageSize, folder: Path) -> dict:
    """Find, read and write a whole data set, see `write_slices`, without anything to resume from."""
    found = FoundScans.of(dataset, layout)
    return write_slices(found, params, map(open_extraction(layout, params, image_size), found.labelled), folder)


def open_extraction(layout: Layout, params: ExtractParams, image_size: ImageSize) -> Callable[[FoundScan], Result]:
    """A scan -> its slices, in any process."""
    return functools.partial(extract_scan, layout, params, image_size)


def extract_scan(layout: Layout, params: ExtractParams, image_size: ImageSize, found: FoundScan) -> Result:
    """Images, masks and foreground samples of a scan, and what else is known of it; or why it is left out, with
    `on_error: skip`. Raises ReadError for a bad scan with `on_error: fail`."""
    try:
        scan = layout.read_scan(found, params.patient_salt).in_plane(layout.plane)
        slices = slice_scan(scan, layout.modality, image_size, params.foreground_samples, layout.context)
    except ReadError as error:
        if params.on_error == "fail":
            raise
        return {}, {"left_out": _left_out(error, found, layout, params.patient_salt)}
    geometry = scan.volume.geometry
    record = {"source_file": scan.source_file, "channels": len(scan.channels), "index": slices.index,
              "scan": slices.scan, "plane": None if geometry.is_image else geometry.plane}
    return {name: getattr(slices, name) for name in _arrays_of(layout) + ["foreground"]}, record


def _arrays_of(layout: Layout) -> list[str]:
    return ["images", "organ", "lesion", *(["clean"] if layout.has_clean_images else [])]


def write_slices(found: FoundScans, params: ExtractParams, results: Iterable[Result], folder: Path) -> dict:
    """Write images, masks, tables, foreground samples and the manifest of a whole data set into `folder`.

    results: of `extract_scan`, of the labelled scans in their order. Images are (N,H,W), or (N,C,H,W) of several
    channels. Returns the manifest. Raises ReadError at the first bad scan (with `on_error: fail`), ExtractError where
    no slice remains.
    """
    dataset, layout, labelled = found.dataset, found.layout, found.labelled
    arrays: dict[str, GrowingArray] = {}  # made with the first scan, which tells the number of channels
    channels: list[str] = []
    planes: Counter[str] = Counter()
    index: list[dict] = []
    scans: list[dict] = []
    foreground: dict[str, np.ndarray] = {}
    left_out = [_without_label(each, layout, params.patient_salt) for each in found.all if each.class_label is None]
    left_out += [_left_out(error, each, layout, params.patient_salt) for each, error in found.others]
    unread = 0
    without_organ: list[str] = []
    for each, (parts, record) in zip(labelled, results, strict=True):
        if "left_out" not in record and record["index"]:
            try:
                _refuse_other_channels(record["source_file"], parts["images"], arrays)
            except ReadError as error:
                if params.on_error == "fail":
                    raise
                record = {"left_out": _left_out(error, each, layout, params.patient_salt)}
        if "left_out" in record:
            left_out.append(record["left_out"])
            unread += 1
            continue
        if not record["index"]:
            without_organ.append(record["source_file"])
            continue
        for name in _arrays_of(layout):
            part = pack(parts[name]) if name in ("organ", "lesion") else parts[name]
            if name not in arrays:
                arrays[name] = GrowingArray(folder / f"{name}.npy", part.shape[1:], part.dtype)
            arrays[name].append(part)
        if record["plane"] is not None:
            planes[record["plane"]] += 1
        channels = layout.channel_names(record["channels"])
        index += record["index"]
        scans.append(record["scan"])
        foreground[record["scan"]["scan_id"]] = parts["foreground"]
    for array in arrays.values():
        array.close()
    class_left_out = len(found.all) - len(labelled)
    if not index:
        first = f"; the first: {left_out[-unread]['file']}: {left_out[-unread]['reason']}" if unread else ""
        raise ExtractError(f"datasets.{dataset}: no slice left of {len(found.all)} scans in {layout.root}: "
                           f"{len(without_organ)} have no organ in any slice, {class_left_out} have a class that is "
                           f"left out or unknown, {unread} can't be read{first}. "
                           + (f"Check `organ` under datasets.{dataset} and the files that it names" if without_organ
                              else f"Check the labels or classes of datasets.{dataset}" if class_left_out
                              else "Get these files again"))
    manifest = {
        "dataset": dataset, "anomalies": layout.anomalies, "lesion_threshold_px": layout.lesion_threshold_px,
        "modality": layout.modality, "left_out": left_out, "without_organ": without_organ,
        "channels": channels, "planes": dict(planes),
        "counts": {"found": len(found.all), "scans": len(scans), "slices": len(index),
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


def _refuse_other_channels(source_file: str, images: np.ndarray, arrays: dict[str, GrowingArray]) -> None:
    """Raises ReadError for a scan with more or fewer channels than those before it."""
    if arrays and images.shape[1:] != arrays["images"].shape:
        found, expected = images.shape[1:], arrays["images"].shape
        raise ReadError(source_file, f"becomes slices of shape {found}, the scans before it of {expected}: it has "
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

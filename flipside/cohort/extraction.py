"""Scans to slices: which are kept, how they are resized, and what is written to data/extracted."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pandas as pd
import pydantic
from scipy import ndimage

from flipside.core.files import write_json
from flipside.core.params import Params
from flipside.core.progress import progress
from flipside.core.store import INDEX_COLUMNS
from flipside.scans.dicom import without_names
from flipside.scans.geometry import resize_bilinear, resize_nearest
from flipside.scans.layouts import Block, Case, find_cases
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan, names_in, read_case, read_table

AIR_HU = -500.0  # between lung and fat on one side, room air on the other
COLUMNS = [name for name in INDEX_COLUMNS if name not in ("relative_height", "label", "split")]


class ExtractError(ValueError):
    """A data set of which no slice is left."""


class ExtractParams(Params):
    on_error: Literal["fail", "skip"]
    """At a scan that can't be read: stop, or go on and list it in the manifest."""
    foreground_samples: int = pydantic.Field(ge=1)
    """Intensities kept per scan for the window's fingerprint."""
    patient_salt: str = pydantic.Field(min_length=1)
    """Hashed with the patient id of a DICOM header."""


@dataclass(frozen=True, eq=False)
class ScanSlices:
    """What one scan contributes, in memory until the whole scan has been read."""

    images: np.ndarray  # (K,H,W) float32 in the scan's units
    organ: np.ndarray  # (K,H,W) uint8
    lesion: np.ndarray  # (K,H,W) uint8
    index: list[dict]
    scan: dict
    foreground: np.ndarray  # (S,) float32, native grid


class GrowingArray:
    """A .npy file whose first axis grows as scans are appended: a data set needn't fit in memory."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: type):
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


def extract(dataset: str, block: Block, params: ExtractParams, image_size: int, folder: Path) -> dict:
    """Write images, masks, tables, foreground samples and the manifest of a whole data set into `folder`.

    Returns the manifest. Raises ReadError at the first bad scan (with `on_error: fail`), ExtractError where no slice
    remains, DatasetError where the data set is not what its block says.
    """
    cases, table = find_cases(dataset, block), read_table(block)
    unlabelled = [case for case in cases if table.get(case.case, (0, ""))[0] is None]
    arrays = {name: GrowingArray(folder / f"{name}.npy", (image_size, image_size), dtype)
              for name, dtype in (("images", np.float32), ("organ", np.uint8), ("lesion", np.uint8))}
    index, scans, foreground, left_out, without_organ = [], [], {}, [], []
    skipped = set(unlabelled)
    for case in progress([case for case in cases if case not in skipped], "extracting"):
        try:
            scan = read_case(case, block, table, params.patient_salt)
            slices = slice_scan(scan, block.modality, image_size, params.foreground_samples)
        except ReadError as error:
            if params.on_error == "fail":
                raise
            left_out.append(_left_out(error, case, block, params.patient_salt))
            continue
        if not slices.index:
            without_organ.append(scan.source_file)
            continue
        for name, array in arrays.items():
            array.append(getattr(slices, name))
        index += slices.index
        scans.append(slices.scan)
        foreground[scan.scan_id] = slices.foreground
    for array in arrays.values():
        array.close()
    if not index:
        first = f"; the first: {left_out[0]['file']}: {left_out[0]['reason']}" if left_out else ""
        raise ExtractError(f"datasets.{dataset}: no slice left of {len(cases)} scans in {block.root}: "
                           f"{len(without_organ)} have no organ in any slice, {len(unlabelled)} have a class that is "
                           f"left out, {len(left_out)} can't be read{first}. "
                           f"Check `organ` under datasets.{dataset} and the files that it names")
    manifest = {
        "dataset": dataset, "anomalies": block.anomalies, "lesion_threshold_px": block.lesion_threshold_px,
        "modality": block.modality, "left_out": left_out, "without_organ": without_organ,
        "counts": {"found": len(cases), "scans": len(scans), "slices": len(index),
                   "patients": len({scan["patient_id"] for scan in scans}), "left_out": len(left_out),
                   "without_organ": len(without_organ), "class_left_out": len(unlabelled)},
    }
    pd.DataFrame(index)[[*COLUMNS, "lesion_px", "sha256", "class_label"]].to_csv(folder / "index.csv", index=False)
    pd.DataFrame(scans).to_csv(folder / "scans.csv", index=False)
    with zipfile.ZipFile(folder / "foreground.npz", "w") as archive:  # np.savez refuses some names of scans
        for name, values in foreground.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)
    write_json(folder / "manifest.json", manifest)
    return manifest


def _left_out(error: ReadError, case: Case, block: Block, salt: str) -> dict[str, str]:
    """The manifest's entry of a scan that can't be read, without the data set's folder and without patients' names."""
    root, names = f"{Path(block.root)}/", names_in(case, block)
    return {"file": without_names(error.file.removeprefix(root), names, salt),
            "reason": without_names(error.reason.replace(root, ""), names, salt)}


def slice_scan(scan: Scan, modality: str, image_size: int, foreground_samples: int) -> ScanSlices:
    """The slices of a scan that hold organ (all without organ labels), resized to `image_size` squared.

    Images by bilinear interpolation (averaging where they shrink), masks by nearest neighbour; areas are counted
    before that, on the native grid, the organ's as labelled; its mask gets its lesions. Raises ReadError for a kept
    slice with NaN or infinite values.
    """
    count, rows, columns = scan.volume.stored.shape
    organ_px = np.full(count, -1) if scan.organ is None else np.array(
        [np.count_nonzero(scan.organ_slice(z)) for z in range(count)])
    lesion_px = np.zeros(count, int) if scan.lesion is None else np.array(
        [np.count_nonzero(scan.lesion.slice(z)) for z in range(count)])
    kept = np.flatnonzero(organ_px)
    images = np.empty((len(kept), image_size, image_size), np.float32)  # (K,H,W)
    organ, lesion = np.ones(images.shape, np.uint8), np.zeros(images.shape, np.uint8)
    spacing_row, spacing_column, spacing_z = scan.spacing_mm
    index, areas = [], np.zeros(len(kept), int)
    for k, z in enumerate(kept):
        native = scan.volume.slice(z)  # (R,C)
        if not np.isfinite(native).all():
            raise ReadError(scan.source_file, f"slice {z} holds NaN or infinite values", "Repair or leave out the scan")
        images[k] = resize_bilinear(native, image_size)  # (H,W)
        organ_slice = scan.organ_slice(z)
        if organ_slice is None:
            areas[k] = np.count_nonzero(_foreground(native, None, modality))
        else:
            whole = with_lesions(organ_slice, scan.lesion.slice(z)) if lesion_px[z] else organ_slice
            areas[k], organ[k] = organ_px[z], resize_nearest(whole, image_size, image_size)
        if lesion_px[z]:
            lesion[k] = resize_nearest(scan.lesion.slice(z), image_size, image_size)
        index.append({
            "slice_id": scan.scan_id if scan.volume.geometry.is_image else f"{scan.scan_id}_z{z:04d}",
            "scan_id": scan.scan_id, "patient_id": scan.patient_id, "z": z,
            "spacing_row_mm": spacing_row * rows / image_size,
            "spacing_col_mm": spacing_column * columns / image_size, "spacing_z_mm": spacing_z,
            "native_rows": rows, "native_cols": columns, "organ_px": organ_px[z], "source_file": scan.source_file,
            "lesion_px": lesion_px[z], "sha256": scan.image_digest or _digest(scan.volume.stored[z]),
            "class_label": scan.class_label,
        })
    described = {
        "scan_id": scan.scan_id, "patient_id": scan.patient_id,
        "lesion_volume_mm3": float(lesion_px.sum() * np.prod(scan.spacing_mm)), "source_file": scan.source_file,
        "given_split": scan.given_split, "geometry": scan.volume.geometry.to_json(),
    }
    foreground = _sample_foreground(scan, modality, kept, areas, foreground_samples)
    return ScanSlices(images, organ, lesion, index, described, foreground)


def _digest(stored: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(stored).data).hexdigest()


def with_lesions(organ: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """The organ (R,C) bool with the lesions that touch it, of organ and lesion (R,C) bool.

    Organ labels may leave lesions out (KiTS). Stages that train and explain get the organ's mask, and a gap in it would
    tell them where the lesion is; so would a lesion apart from the organ, if it were joined.
    """
    parts, _ = ndimage.label(organ | lesion)  # 0 outside of both
    return np.isin(parts, np.unique(parts[organ]))


def _foreground(native: np.ndarray, organ: np.ndarray | None, modality: str) -> np.ndarray:
    """(R,C) bool: the organ; without organ labels what is not air (other than CT: not the darkest value)."""
    if organ is not None:
        return organ
    return native > (AIR_HU if modality == "ct" else native.min())


def _sample_foreground(scan: Scan, modality: str, kept: np.ndarray, areas: np.ndarray, samples: int) -> np.ndarray:
    """At most `samples` intensities of the scan's foreground, drawn evenly and without replacement; (S,) float32."""
    rng = np.random.default_rng(zlib.crc32(scan.scan_id.encode()))
    wanted = min(samples, int(areas.sum()))
    shares = rng.multivariate_hypergeometric(areas, wanted, method="marginals") if wanted else np.zeros(len(kept), int)
    values = [np.empty(0, np.float32)]
    for z, share in zip(kept[shares > 0], shares[shares > 0], strict=True):
        native = scan.volume.slice(z)
        values.append(rng.choice(native[_foreground(native, scan.organ_slice(z), modality)], share, replace=False))
    return np.concatenate(values)

"""One scan to slices: which are kept, how they are resized, and what is counted on the scan's own grid."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from flipside.scans.pixels import resize_bilinear, resize_nearest
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan

AIR_HU = -500.0  # between lung and fat on one side, room air on the other


@dataclass(frozen=True, eq=False)
class ScanSlices:
    """What one scan contributes, in memory until the whole scan has been read."""

    images: np.ndarray  # (K,H,W) float32 in the scan's units
    organ: np.ndarray  # (K,H,W) uint8
    lesion: np.ndarray  # (K,H,W) uint8
    clean: np.ndarray | None  # (K,H,W) float32 without what was simulated, in the scan's units
    index: list[dict]
    scan: dict
    foreground: np.ndarray  # (S,) float32, native grid


def slice_scan(scan: Scan, modality: str, image_size: int, foreground_samples: int) -> ScanSlices:
    """The slices of a scan that hold organ (all without organ labels), resized to `image_size` squared.

    Images by bilinear interpolation (averaging where they shrink), masks by nearest neighbour; areas are counted
    before that, on the native grid, the organ's as labelled; its mask gets its lesions. Raises ReadError for a kept
    slice with NaN or infinite values.
    """
    count, rows, columns = scan.volume.stored.shape
    organs = (scan.organ_slice(z) for z in range(count))
    organ_px = np.array([-1 if organ is None else np.count_nonzero(organ) for organ in organs])
    lesion_px = np.zeros(count, int) if scan.lesion is None else np.array(
        [np.count_nonzero(scan.lesion.slice(z)) for z in range(count)])
    kept: list[int] = np.flatnonzero(organ_px).tolist()
    images = np.empty((len(kept), image_size, image_size), np.float32)  # (K,H,W)
    organ, lesion = np.ones(images.shape, np.uint8), np.zeros(images.shape, np.uint8)
    clean = None if scan.clean is None else np.empty_like(images)
    spacing_row, spacing_column, spacing_z = scan.spacing_mm
    index, areas = [], np.zeros(len(kept), int)
    for k, z in enumerate(kept):
        native = scan.volume.slice(z)  # (R,C)
        if not np.isfinite(native).all():
            raise ReadError(scan.source_file, f"slice {z} holds NaN or infinite values", "Repair or leave out the scan")
        images[k] = resize_bilinear(native, image_size)  # (H,W)
        if clean is not None and scan.clean is not None:
            clean[k] = resize_bilinear(scan.clean.slice(z), image_size)
        organ_slice = scan.organ_slice(z)
        lesion_slice = scan.lesion.slice(z) if scan.lesion is not None and lesion_px[z] else None
        if organ_slice is None:
            areas[k] = np.count_nonzero(_foreground(native, None, modality))
        else:
            whole = organ_slice if lesion_slice is None else with_lesions(organ_slice, lesion_slice)
            areas[k], organ[k] = organ_px[z], resize_nearest(whole, image_size, image_size)
        if lesion_slice is not None:
            lesion[k] = resize_nearest(lesion_slice, image_size, image_size)
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
        "lesion_volume_mm3": float(
            lesion_px.sum() * np.prod(scan.spacing_mm) * scan.volume.geometry.volume_over_sides),
        "source_file": scan.source_file,
        "given_split": scan.given_split, "geometry": scan.volume.geometry.to_json(),
    }
    foreground = _sample_foreground(scan, modality, kept, areas, foreground_samples)
    return ScanSlices(images, organ, lesion, clean, index, described, foreground)


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


def _sample_foreground(scan: Scan, modality: str, kept: list[int], areas: np.ndarray, samples: int) -> np.ndarray:
    """At most `samples` intensities of the scan's foreground, drawn evenly and without replacement; (S,) float32."""
    rng = np.random.default_rng(zlib.crc32(scan.scan_id.encode()))
    wanted = min(samples, int(areas.sum()))
    shares = rng.multivariate_hypergeometric(areas, wanted, method="marginals") if wanted else np.zeros(len(kept), int)
    values = [np.empty(0, np.float32)]
    for z, share in zip(kept, shares, strict=True):
        if share == 0:
            continue
        native = scan.volume.slice(z)
        values.append(rng.choice(native[_foreground(native, scan.organ_slice(z), modality)], share, replace=False))
    return np.concatenate(values)

"""One scan to slices: which are kept, how they are resized, and what is counted on the scan's own grid."""

from __future__ import annotations

import functools
import hashlib
import zlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from flipside.core.image_size import ImageSize, image_shape
from flipside.scans.pixels import resize_bilinear, resize_nearest
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan

AIR_HU = -500.0  # between lung and fat on one side, room air on the other


@dataclass(frozen=True, eq=False)
class ScanSlices:
    """What one scan contributes, in memory until the whole scan has been read."""

    images: np.ndarray  # (K,H,W) float32 in the scan's units; (K,C,H,W) of several channels
    organ: np.ndarray  # (K,H,W) uint8
    lesion: np.ndarray  # (K,H,W) uint8
    clean: np.ndarray | None  # (K,H,W) float32 without what was simulated, in the scan's units
    index: list[dict]
    scan: dict
    foreground: np.ndarray  # (S,) float32, native grid; (S,V) of a scan with V registered volumes


def slice_scan(scan: Scan, modality: str, image_size: ImageSize, foreground_samples: int, context: int = 0
               ) -> ScanSlices:
    """The slices of a scan that hold organ (all without organ labels), resized to `image_size`.

    Images by bilinear interpolation (averaging where they shrink), masks by nearest neighbour; areas are counted
    before that, on the native grid, the organ's as labelled; its mask gets its lesions. A slice of another shape than
    the image is padded: with its darkest value, outside of organ and lesion.
    Channels are the scan's registered volumes; with `context` those of each slice from z - context to z + context,
    where beyond the lowest and the highest slice these are repeated.
    Raises ReadError for a kept slice with NaN or infinite values and for an image with `context`.
    """
    geometry, shape = scan.volume.geometry, image_shape(image_size)
    if geometry.is_image and context:
        raise ReadError(scan.source_file, f"is a single image, which has no neighbouring slices for context {context}",
                        "Set the data set's `context` to 0")
    if scan.clean is not None and len(scan.channels) > 1:
        raise ReadError(scan.source_file, f"has {len(scan.channels)} channels, its clean image one",
                        "Read it as one grey channel")
    count, rows, columns = scan.volume.stored.shape
    box = geometry.content_box(shape)
    height, width = (side.stop - side.start for side in box)
    organs = (scan.organ_slice(z) for z in range(count))
    organ_px = np.array([-1 if organ is None else np.count_nonzero(organ) for organ in organs])
    lesion_px = np.zeros(count, int) if scan.lesion is None else np.array(
        [np.count_nonzero(scan.lesion.slice(z)) for z in range(count)])
    kept: list[int] = np.flatnonzero(organ_px).tolist()
    channels = len(scan.channels) * (2 * context + 1)
    images = np.empty((len(kept), channels, *shape), np.float32)  # (K,C,H,W)
    organ, lesion = np.zeros((2, len(kept), *shape), np.uint8)  # (K,H,W) each
    clean = None if scan.clean is None else np.empty((len(kept), *shape), np.float32)
    spacing_row, spacing_column, spacing_z = scan.spacing_mm

    @functools.lru_cache(2 * context + 1)
    def resized(z: int) -> np.ndarray:  # (V,H,W)
        native = scan.image_slice(z)  # (V,R,C')
        if not np.isfinite(native).all():
            raise ReadError(scan.source_file, f"slice {z} holds NaN or infinite values", "Repair or leave out the scan")
        return np.stack([_padded(plane, box, shape) for plane in native])

    index, areas = [], np.zeros(len(kept), int)
    for k, z in enumerate(kept):
        around = range(z - context, z + context + 1)
        images[k] = np.concatenate([resized(min(max(near, 0), count - 1)) for near in around])
        if clean is not None and scan.clean is not None:
            clean[k] = _padded(scan.clean.slice(z), box, shape)
        organ_slice = scan.organ_slice(z)
        lesion_slice = scan.lesion.slice(z) if scan.lesion is not None and lesion_px[z] else None
        if organ_slice is None:
            areas[k], organ[k][box] = np.count_nonzero(_foreground(scan.volume.slice(z), None, modality)), 1
        else:
            whole = organ_slice if lesion_slice is None else with_lesions(organ_slice, lesion_slice)
            areas[k], organ[k][box] = organ_px[z], resize_nearest(whole, height, width)
        if lesion_slice is not None:
            lesion[k][box] = resize_nearest(lesion_slice, height, width)
        index.append({
            "slice_id": scan.scan_id if geometry.is_image else f"{scan.scan_id}_z{z:04d}",
            "scan_id": scan.scan_id, "patient_id": scan.patient_id, "z": z,
            "spacing_row_mm": spacing_row * rows / height, "spacing_col_mm": spacing_column * columns / width,
            "spacing_z_mm": spacing_z,
            "native_rows": rows, "native_cols": columns, "organ_px": organ_px[z], "source_file": scan.source_file,
            "lesion_px": lesion_px[z], "sha256": scan.image_digest or _digest(scan, z),
            "class_label": scan.class_label, "slice_number": scan.slice_number,
        })
    described = {
        "scan_id": scan.scan_id, "patient_id": scan.patient_id,
        "lesion_volume_mm3": float(
            lesion_px.sum() * np.prod(scan.spacing_mm) * geometry.volume_over_sides),
        "source_file": scan.source_file,
        "given_split": scan.given_split, "site": scan.site, "geometry": geometry.to_json(),
    }
    foreground = _sample_foreground(scan, modality, kept, areas, foreground_samples)
    images = images[:, 0] if channels == 1 else images
    return ScanSlices(images, organ, lesion, clean, index, described, foreground)


def _padded(native: np.ndarray, box: tuple[slice, slice], shape: tuple[int, int]) -> np.ndarray:
    """(R,C) float32 -> (H,W) of `shape`: resized into the box, the slice's darkest value around it."""
    resized = resize_bilinear(native, box[0].stop - box[0].start, box[1].stop - box[1].start)
    if resized.shape == shape:
        return resized
    padded = np.full(shape, native.min(), np.float32)
    padded[box] = resized
    return padded


def _digest(scan: Scan, z: int) -> str:
    """sha256 of slice z as it is stored, all channels."""
    digest = hashlib.sha256()
    for channel in scan.channels:
        digest.update(np.ascontiguousarray(channel.stored[z]).data)
    return digest.hexdigest()


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
    """Intensities at at most `samples` pixels of the scan's foreground, drawn evenly and without replacement; (S,)
    float32, or (S,V) of several registered volumes."""
    rng = np.random.default_rng(zlib.crc32(scan.scan_id.encode()))
    wanted = min(samples, int(areas.sum()))
    shares = rng.multivariate_hypergeometric(areas, wanted, method="marginals") if wanted else np.zeros(len(kept), int)
    values = [np.empty((0, len(scan.channels)), np.float32)]
    for z, share in zip(kept, shares, strict=True):
        if share == 0:
            continue
        native = scan.image_slice(z)  # (V,R,C')
        inside = native[:, _foreground(native[0], scan.organ_slice(z), modality)]  # (V,P)
        values.append(rng.choice(inside.T, share, replace=False))
    drawn = np.concatenate(values)  # (S,V)
    return drawn[:, 0] if len(scan.channels) == 1 else drawn

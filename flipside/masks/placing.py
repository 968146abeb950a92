"""Masks and maps of slices back on the original grids of their scans."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from PIL import Image

from flipside.core.index_tables import read_index
from flipside.core.params import Params
from flipside.core.paths import EXTRACTED
from flipside.masks.extraction.morphology import Step, clean
from flipside.masks.extraction.thresholds import MaskError, Policy
from flipside.masks.volumes import VolumeParams, clean_volume
from flipside.scans.geometry import Geometry, from_slices, place_slices, slices_shape, to_slices
from flipside.scans.pixels import resize_bilinear


class SegmentScansParams(Params):
    """Section `segment_scans`: whose masks become segmentations of whole scans."""

    method: str
    """Method whose masks are placed, a name under `methods`."""
    policy: Policy
    """Threshold policy of those masks, with the cleaning steps of `masks.morphology`."""
    volumes: VolumeParams
    """The clean-up of a volume's mask, slice by slice found and then made one body."""


def safe_name(scan_id: str) -> str:
    """A scan's name for a file or folder; characters that file systems refuse become an underscore."""
    return re.sub(r"[^\w.-]", "_", scan_id)


def file_name(scan_id: str, geometry: Geometry) -> str:
    """Name of a scan's segmentation."""
    return safe_name(scan_id) + (".png" if geometry.is_image else ".nii.gz")


def write_segmentation(file: Path, masks: np.ndarray, z: np.ndarray, geometry: Geometry, volumes: VolumeParams
                       ) -> np.ndarray:
    """Write masks (K,H,W) uint8 0/1 of the slices z (K,) on the scan's own grid, and return them there.

    Volumes: NIfTI, uint8, 1 = lesion, the scan's affine, slices without a mask 0, cleaned as `volumes` says. Images:
    PNG, 255 = lesion.
    """
    whole = place_slices(masks, z, geometry)
    if geometry.is_image:
        Image.fromarray(whole * np.uint8(255)).save(file)
    else:
        cleaned = clean_volume(to_slices(whole, geometry), z, voxel_mm3(geometry), volumes)  # (Z,R,C)
        whole = np.ascontiguousarray(from_slices(cleaned, geometry))
        save_nifti(file, whole, geometry)
    return whole


def save_nifti(file: Path, array: np.ndarray, geometry: Geometry, slope: float = 1.0, intercept: float = 0.0) -> None:
    """Write a volume on the scan's original grid as it is stored: its values are `slope` times the numbers in `array`
    plus `intercept`."""
    image = nibabel.Nifti1Image(array, geometry.affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, file)


def voxel_mm3(geometry: Geometry) -> float:
    """Volume of a voxel in mm³; on a sheared grid less than the product of its sides. 1 for an image's pixel."""
    return 1.0 if geometry.affine is None else abs(float(np.linalg.det(geometry.affine[:3, :3])))


def on_own_grid(images: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Maps (K,H,W) at the store's size on the native grid of their slices, without the padding, bilinear: (K,R,C)
    float32."""
    _, rows, columns = slices_shape(geometry)
    box = geometry.content_box((images.shape[-2], images.shape[-1]))
    return resize_bilinear(np.ascontiguousarray(images[:, *box], np.float32), rows, columns)


def mask_on_own_grid(heights: np.ndarray, thresholds: np.ndarray, steps: list[Step], geometry: Geometry) -> np.ndarray:
    """Masks (K,R,C) bool of slices on their native grid, of the heights of their maps (K,H,W) at the store's size and
    the thresholds (K,).

    The heights are interpolated before they are cut, so the outline is smooth however coarse the store is. Opening and
    closing come before that, with their window in the store's pixels, as when masks are made there: on grey levels they
    commute with the threshold (see morphology.py). The steps from `largest_component` on see the mask. Slices whose
    threshold is infinite are left empty without any of this.
    """
    first = steps.index("largest_component") if "largest_component" in steps else len(steps)
    masks, some = np.zeros((len(heights), *slices_shape(geometry)[1:]), bool), np.isfinite(thresholds)
    if some.any():
        levels = on_own_grid(clean(np.asarray(heights[some], np.float32), steps[:first]), geometry)
        masks[some] = clean(levels > np.asarray(thresholds[some], np.float32)[:, None, None], steps[first:])
    return masks


def read_geometries(scan_ids: pd.Series) -> dict[str, Geometry]:
    """The original grid of each of the scans, from data/extracted/scans.csv."""
    file = Path(EXTRACTED) / "scans.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found: run `dvc repro extract_slices`")
    scans = read_index(file).set_index("scan_id")["geometry"]
    unknown = sorted(set(scan_ids) - set(scans.index))
    if unknown:
        raise MaskError(f"{file} lacks {len(unknown)} scans of the slice store (first: {unknown[0]}): "
                        "run `dvc repro extract_slices`")
    return {scan_id: Geometry.from_json(scans[scan_id]) for scan_id in dict.fromkeys(scan_ids)}

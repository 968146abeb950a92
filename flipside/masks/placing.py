"""Masks of slices back on the original grids of their scans."""

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
from flipside.masks.extraction.thresholds import MaskError, Policy
from flipside.scans.geometry import Geometry, place_slices


class SegmentScansParams(Params):
    """Section `segment_scans`: whose masks become segmentations of whole scans."""

    method: str
    """Method whose masks are placed, a name under `methods`."""
    policy: Policy
    """Threshold policy of those masks, with the cleaning steps of `masks.morphology`."""


def file_name(scan_id: str, geometry: Geometry) -> str:
    """Name of a scan's segmentation; characters that file systems refuse become an underscore."""
    return re.sub(r"[^\w.-]", "_", scan_id) + (".png" if geometry.is_image else ".nii.gz")


def write_segmentation(file: Path, masks: np.ndarray, z: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Write masks (K,H,W) uint8 0/1 of the slices z (K,) on the scan's own grid, and return them there.

    Volumes: NIfTI, uint8, 1 = lesion, the scan's affine, slices without a mask 0. Images: PNG, 255 = lesion.
    """
    whole = place_slices(masks, z, geometry)
    if geometry.is_image:
        Image.fromarray(whole * np.uint8(255)).save(file)
    else:
        image = nibabel.Nifti1Image(whole, geometry.affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, file)
    return whole


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

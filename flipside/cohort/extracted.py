"""What the stage extract_slices wrote: slices in their scans' own units, with masks and tables."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.core.files import read_json
from flipside.core.index_tables import read_index
from flipside.core.packed_masks import PackedMasks, Stack
from flipside.scans.geometry import Geometry

MANIFEST_KEYS = ("dataset", "anomalies", "lesion_threshold_px", "modality", "channels")


class SelectionError(ValueError):
    """Extracted slices that can't become a usable data set; the message has the counts."""


@dataclass(frozen=True)
class Extracted:
    """The extraction's output, memory-mapped; rows of the arrays and of `index` agree."""

    images: np.ndarray  # (N,H,W) float32 in the scan's own units; (N,C,H,W) of several channels
    organ: Stack  # (N,H,W) uint8 0/1
    lesion: Stack  # (N,H,W) uint8 0/1
    clean: np.ndarray | None  # (N,H,W) float32 without what was simulated on them; None where that isn't known
    index: pd.DataFrame
    scans: pd.DataFrame
    manifest: dict
    folder: Path

    @functools.cached_property
    def boxes(self) -> dict[str, tuple[slice, slice]]:
        """{scan_id: rows and columns of its slices that show the scan}; padding lies around them."""
        shape = self.images.shape[-2], self.images.shape[-1]
        return {scan_id: Geometry.from_json(text).content_box(shape)
                for scan_id, text in zip(self.scans["scan_id"], self.scans["geometry"], strict=True)}

    @classmethod
    def open(cls, path: Path | str) -> Extracted:
        """Open `data/extracted`. Raises SelectionError when a file or a manifest key is missing or rows don't agree."""
        path = Path(path)
        for name in ("images.npy", "organ.npy", "lesion.npy", "index.csv", "scans.csv", "foreground.npz",
                     "manifest.json"):
            if not (path / name).is_file():
                raise SelectionError(f"{path / name} not found: run `dvc repro extract_slices`")
        images = np.load(path / "images.npy", mmap_mode="r")
        organ, lesion = (PackedMasks.open(path / f"{name}.npy", images.shape[-1]) for name in ("organ", "lesion"))
        clean = np.load(path / "clean.npy", mmap_mode="r") if (path / "clean.npy").is_file() else None
        index = read_index(path / "index.csv")
        scans = read_index(path / "scans.csv")
        manifest = read_json(path / "manifest.json")
        missing = [key for key in MANIFEST_KEYS if key not in manifest]
        if missing:
            raise SelectionError(f"{path}/manifest.json lacks {missing}: run `dvc repro extract_slices` again")
        shapes = {(*array.shape[:1], *array.shape[-2:]) for array in (images, organ, lesion, clean)
                  if array is not None}
        if shapes != {(len(index), *images.shape[-2:])}:
            raise SelectionError(f"{path}: images {images.shape}, organ {organ.shape}, lesion {lesion.shape} and "
                                 f"{len(index)} index rows don't agree")
        return cls(images, organ, lesion, clean, index, scans, manifest, path)

"""The slice store: the one form in which stages hand images to each other.

A folder with `images.npy` float16 in [-1,1], `organ.npy` (N,H,W) in bits and `index.csv`, one row per slice. Images are
(N,H,W); of slices with several channels (colours, registered volumes, neighbouring slices) they are (N,C,H,W). What
computes with images takes them through `as_channels`.
Lesion masks are not in it: they are the separate truth artifact (`lesion.npy`, aligned with the index), which only the
preparation, the thresholds and the evaluation may open.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from flipside.core import paths
from flipside.core.files import atomic_folder, file_digest, naming_a_full_disk, new_memmap, write_json
from flipside.core.index_tables import read_index
from flipside.core.packed_masks import PackedMasks, Stack, write_packed

INDEX_COLUMNS = [
    "slice_id",  # unique name of the slice
    "source_slice_id",  # the extracted slice that it was made of: itself, but for draws and training copies
    "draw",  # number of its synthetic anomaly's draw among those of its source, from 0
    "scan_id",
    "patient_id",  # salted hash where it comes from a DICOM header
    "z",  # index of the slice in the scan, along the canonical RAS axis across its plane (0 for single images)
    "relative_height",  # 0 (lowest kept slice of the scan) .. 1 (highest)
    "spacing_row_mm",  # of one pixel of the store, not of the scan
    "spacing_col_mm",
    "spacing_z_mm",
    "native_rows",  # grid of the slice before the resize
    "native_cols",
    "label",  # 1 = abnormal
    "split",  # train, val or test
    "organ_px",  # on the native grid
    "source_file",  # relative to the data set's root
]


RGB = ("red", "green", "blue")  # names of channels that pictures show in colour

Images = TypeVar("Images", bound=Any)  # an array or a tensor


class StoreError(ValueError):
    """A slice store that is missing, incomplete or inconsistent."""


@dataclass(frozen=True)
class SliceStore:
    """Memory-mapped images and organ masks with their index."""

    images: np.ndarray  # (N,H,W), or (N,C,H,W) with several channels; float16 in [-1,1]
    organ: Stack  # (N,H,W) uint8 0/1
    index: pd.DataFrame
    path: Path

    @classmethod
    def open(cls, path: Path | str) -> SliceStore:
        path = Path(path)
        for name in ("images.npy", "organ.npy", "index.csv"):
            if not (path / name).is_file():
                raise StoreError(f"{path / name} not found: run the preparation first (`dvc repro draw_anomalies`)")
        images = np.load(path / "images.npy", mmap_mode="r")
        organ = PackedMasks.open(path / "organ.npy", images.shape[-1])
        index = read_index(path / "index.csv")
        missing = [column for column in INDEX_COLUMNS if column not in index]
        if missing:
            raise StoreError(f"{path}/index.csv lacks the columns {missing}")
        _check_shapes(images, organ, index, f"{path}: ")
        return cls(images, organ, index, path)

    @property
    def channels(self) -> int:
        """C; 1 of images (N,H,W)."""
        return as_channels(self.images).shape[1]

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a slice in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of images and index: changes when the data change. Reads the whole file, once and only where asked for."""
        return file_digest(self.path / "images.npy")[:16] + file_digest(self.path / "index.csv")[:16]

    def rows(self, split: str | tuple[str, ...], label: int | None = None) -> np.ndarray:
        """Positions of one or several splits' slices (of one label), in index order."""
        wanted = self.index["split"].isin([split] if isinstance(split, str) else split)
        if label is not None:
            wanted &= self.index["label"] == label
        return np.flatnonzero(wanted)


def _check_shapes(images: np.ndarray, organ: Stack, index: pd.DataFrame, where: str = "") -> None:
    """Images (N,H,W) or (N,C,H,W), organ (N,H,W), N rows."""
    wanted = (len(index), *organ.shape[1:])
    if images.ndim not in (3, 4) or (images.shape[0], *images.shape[-2:]) != wanted or organ.shape != wanted:
        raise StoreError(f"{where}images {images.shape}, organ {organ.shape}, index {len(index)} rows don't agree")


def as_channels(images: Images) -> Images:
    """Images (N,H,W) or (N,C,H,W), as the store has them, -> a view (N,C,H,W); arrays and tensors alike."""
    return images if images.ndim == 4 else images[:, None]


def apply_window(images: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Map [low, high] linearly to [-1,1] and clip; float16 of the same shape."""
    low, high = window
    scaled = (np.asarray(images, np.float32) - low) * (2 / (high - low)) - 1
    return np.clip(scaled, -1, 1).astype(np.float16)


def write_store(path: Path | str, images: np.ndarray, organ: Stack, index: pd.DataFrame,
                manifest: dict[str, Any] | None = None) -> None:
    """Write a slice store whole or not at all, with `manifest.json` where one is given.

    Refuses values outside [-1,1], NaN and misaligned arrays.
    """
    _check_shapes(images, organ, index)
    if len(images) and not (images.min() >= -1 and images.max() <= 1):  # NaN fails both comparisons
        raise StoreError(f"images must lie in [-1,1], found {images.min()}..{images.max()}")
    if not index["slice_id"].is_unique:
        raise StoreError("slice_id must be unique")
    extra = [column for column in index if column not in INDEX_COLUMNS]
    with atomic_folder(path) as folder:
        np.save(folder / "images.npy", images.astype(np.float16, copy=False))
        write_packed(folder / "organ.npy", organ)
        index[INDEX_COLUMNS + extra].to_csv(folder / "index.csv", index=False)
        if manifest is not None:
            write_json(folder / "manifest.json", manifest)


@contextlib.contextmanager
def scratch_arrays(stage: str, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Disk-backed images (float16) of `shape`, (N,H,W) or (N,C,H,W), with organ and lesion (N,H,W) uint8, in
    .scratch/<stage>, gone after the block.

    For a store in the making: the arrays of a whole data set needn't fit in memory. Raises DiskFullError.
    """
    folder = Path(paths.SCRATCH) / stage
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with naming_a_full_disk(folder):
            folder.mkdir(parents=True)
            images = new_memmap(folder / "images.npy", np.float16, shape)
            masks = (shape[0], *shape[-2:])
            organ, lesion = (new_memmap(folder / f"{name}.npy", np.uint8, masks) for name in ("organ", "lesion"))
        yield images, organ, lesion
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""The truth artifact: lesion masks, kept apart from the slice store so that no training and no method sees them.

The preparation writes it; after that only the thresholds of masks and the evaluation open it. A test holds every stage
that trains or explains to importing none of this file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from flipside.core.files import atomic_folder
from flipside.core.store import StoreError


def write_truth(path: Path | str, lesion: np.ndarray) -> None:
    """Write `lesion.npy` (N,H,W) uint8, aligned with a store's index."""
    with atomic_folder(path) as folder:
        np.save(folder / "lesion.npy", lesion.astype(np.uint8, copy=False))


def remove_truth(path: Path | str) -> None:
    """Before a store is replaced: its old truth must never lie beside slices that it isn't about."""
    shutil.rmtree(path, ignore_errors=True)


def open_truth(path: Path | str, shape: tuple[int, ...]) -> np.ndarray:
    """Memory-mapped lesion masks (N,H,W) uint8 for a store whose organ masks have this shape; refuses any other."""
    file = Path(path) / "lesion.npy"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found: run the preparation first (`dvc repro draw_anomalies`)")
    lesion = np.load(file, mmap_mode="r")
    if lesion.shape != shape:
        raise StoreError(f"{file} {lesion.shape} doesn't fit the slices {shape}: they are of different runs, "
                         "run `dvc repro`")
    return lesion

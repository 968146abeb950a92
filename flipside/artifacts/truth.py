"""The truth artifact: lesion masks, kept apart from the slice store so that no training and no method sees them.

The preparation writes it; after that only the thresholds of masks and the evaluation open it. A test holds every stage
that trains or explains to importing none of this file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from flipside.core.files import atomic_folder
from flipside.core.packed_masks import PackedMasks, Stack, write_packed
from flipside.core.store import StoreError


def write_truth(path: Path | str, lesion: Stack) -> None:
    """Write `lesion.npy`, masks (N,H,W) in bits, aligned with a store's index."""
    with atomic_folder(path) as folder:
        write_packed(folder / "lesion.npy", lesion)


def remove_truth(path: Path | str) -> None:
    """Before a store is replaced: its old truth must never lie beside slices that it isn't about."""
    shutil.rmtree(path, ignore_errors=True)


def open_truth(path: Path | str, shape: tuple[int, ...]) -> PackedMasks:
    """Memory-mapped lesion masks (N,H,W) for a store whose organ masks have this shape; refuses any other."""
    file = Path(path) / "lesion.npy"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found: run the preparation first (`dvc repro draw_anomalies`)")
    lesion = PackedMasks.open(file, shape[-1])
    if lesion.shape != shape:
        raise StoreError(f"{file} {lesion.shape} doesn't fit the slices {shape}: they are of different runs, "
                         "run `dvc repro`")
    return lesion

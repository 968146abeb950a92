"""The truth artifact: lesion masks, kept apart from the slice store so that no training and no method sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.common.files import atomic_folder


def write_truth(path: Path | str, lesion: np.ndarray) -> None:
    """Write `lesion.npy` (N,H,W) uint8, aligned with a store's index; read by the rooms segment and evaluate."""
    with atomic_folder(path) as folder:
        np.save(folder / "lesion.npy", lesion.astype(np.uint8, copy=False))

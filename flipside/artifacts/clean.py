"""The clean artifact: test slices without what was simulated on them (synthetic anomalies, effects).

It shows where a lesion is, as the truth does: only the preparation writes it, and after that only the evaluation opens
it. A test holds every stage that trains or explains to importing none of this file.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.core.files import atomic_folder, new_memmap
from flipside.core.index_tables import read_index
from flipside.core.store import StoreError


def write_clean(path: Path | str, slice_ids: Sequence[str], images: Iterable[np.ndarray], shape: tuple[int, int]
                ) -> None:
    """Write `clean.npy` (N,H,W) float16 in [-1,1] and `index.csv` with the slices' names.

    images: one (H,W) of `shape` for each of the slices. No slice at all: the data set has no clean images.
    """
    with atomic_folder(path) as folder:
        array = new_memmap(folder / "clean.npy", np.float16, (len(slice_ids), *shape))
        for row, (_, image) in enumerate(zip(slice_ids, images, strict=True)):
            array[row] = image
        pd.DataFrame({"slice_id": list(slice_ids)}).to_csv(folder / "index.csv", index=False)


def remove_clean(path: Path | str) -> None:
    """Before a store is replaced: old clean images must never lie beside slices that they don't belong to."""
    shutil.rmtree(path, ignore_errors=True)


def read_clean(path: Path | str, slice_ids: Sequence[str] | pd.Series) -> np.ndarray | None:
    """Clean images (N,H,W) float16 in [-1,1] of some test slices; None where the data set has none.

    Raises FileNotFoundError where the artifact is missing, StoreError where it lacks one of the slices.
    """
    path, remedy = Path(path), "run `dvc repro draw_anomalies`"
    if not (path / "index.csv").is_file():
        raise FileNotFoundError(f"{path}/index.csv not found: {remedy}")
    known = read_index(path / "index.csv")["slice_id"]
    if known.empty:
        return None
    at = pd.Index(known).get_indexer(list(slice_ids))
    if (at < 0).any():
        raise StoreError(f"{path} lacks {(at < 0).sum()} of the {len(at)} test slices (first: "
                         f"{list(slice_ids)[int(np.argmax(at < 0))]}): it is of another run than the slices, {remedy}")
    return np.load(path / "clean.npy", mmap_mode="r")[at]

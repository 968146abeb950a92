"""The intensity window that maps slices in their scans' units to [-1,1]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from flipside.cohort.extracted import Extracted, SelectionError
from flipside.core.progress import progress
from flipside.core.store import apply_window

CHUNK = 256  # slices held in memory at once


def choose_window(window: Literal["fingerprint"] | tuple[float, float], percentiles: tuple[float, float],
                  extracted: Extracted, index: pd.DataFrame) -> tuple[float, float]:
    """The window [low, high] in the scans' units as it is given, or of the training scans' intensities.

    index: the selected slices, with scan_id and split.
    """
    if window != "fingerprint":
        return window
    training_scans = sorted(index.loc[index["split"] == "train", "scan_id"].unique())
    with np.load(extracted.folder / "foreground.npz") as foreground:
        return fingerprint_window(foreground, training_scans, percentiles)


def fingerprint_window(foreground: Mapping[str, np.ndarray], training_scans: list[str],
                       percentiles: tuple[float, float]) -> tuple[float, float]:
    """CT window [low, high] in the scan's units: percentiles of the training scans' pooled foreground samples.

    The percentiles of nnU-Net's data fingerprint (Isensee et al. 2021), on which COIN windows its CT. Only training
    scans count, so nothing of the test scans enters the images.
    """
    missing = [scan for scan in training_scans if scan not in foreground]
    if missing:
        raise SelectionError(f"foreground.npz has no samples of scan {missing[0]} ({len(missing)} scans lack them): "
                             "run `dvc repro extract_slices` again, or give filter.window as [low, high]")
    pooled = np.concatenate([foreground[scan] for scan in training_scans])
    pooled = pooled[np.isfinite(pooled)]
    if not len(pooled):
        raise SelectionError(f"{len(training_scans)} training scans have no foreground sample: give filter.window as "
                             "[low, high]")
    low, high = (float(value) for value in np.percentile(pooled, percentiles))
    if not low < high:
        raise SelectionError(f"the fingerprint window is empty: percentiles {list(percentiles)} are {low:g} and "
                             f"{high:g}. Give filter.window as [low, high]")
    return low, high


def window_slices(extracted: Extracted, rows: np.ndarray, window: tuple[float, float],
                  out: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Fill `out`, which is images (M,H,W) float16, organ and lesion (M,H,W) uint8, with the kept rows by chunks."""
    images, organ, lesion = out
    for start in progress(range(0, len(rows), CHUNK), "windowing", total=-(-len(rows) // CHUNK)):
        part = rows[start : start + CHUNK]
        here = slice(start, start + len(part))
        images[here] = apply_window(extracted.images[part], window)  # (C,H,W)
        bad = ~np.isfinite(images[here]).all(axis=(1, 2))
        if bad.any():
            name = extracted.index["slice_id"].iloc[part[int(np.argmax(bad))]]
            raise SelectionError(f"{extracted.folder}/images.npy: slice {name} holds NaN; check its source file")
        organ[here], lesion[here] = extracted.organ[part], extracted.lesion[part]


def window_clean(extracted: Extracted, rows: np.ndarray, window: tuple[float, float]) -> Iterator[np.ndarray]:
    """The clean images (H,W) float16 in [-1,1] of some extracted slices that have such."""
    clean = extracted.clean
    if clean is not None:
        yield from (apply_window(clean[row], window) for row in rows)

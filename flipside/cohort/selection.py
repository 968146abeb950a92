"""Which extracted slices are kept, how they are labelled, and the intensity window that maps them to [-1,1]."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pydantic

from flipside.core.files import naming_a_full_disk, new_memmap, read_json
from flipside.core.params import Params
from flipside.core.progress import progress
from flipside.core.store import apply_window

TEXT_COLUMNS = {"slice_id": str, "scan_id": str, "patient_id": str, "sha256": str, "source_file": str}
CHUNK = 256  # slices held in memory at once


class FilterError(ValueError):
    """Extracted slices that can't become a usable data set; the message has the counts."""


class FilterParams(Params):
    min_organ_px: int = pydantic.Field(ge=0)
    """A slice is kept with strictly more organ pixels, native grid."""
    window: Literal["fingerprint"] | tuple[float, float]
    """"fingerprint": percentiles of the training scans' organ intensities; else [low, high] in the scan's units."""
    fingerprint_percentiles: tuple[float, float]
    """Lower and upper percentile of the fingerprint window."""
    val_fraction: float = pydantic.Field(gt=0, lt=1)
    """Of all patients (with use_given_split: of the given training part); realised as one of about 1/fraction folds."""
    test_fraction: float = pydantic.Field(gt=0, le=1)
    """Of all patients; unused with use_given_split; 1: every patient is test, as where trained models are applied."""
    use_given_split: bool
    """Keep the data set's own train/test parts and take val from train."""
    duplicate_distance: int = pydantic.Field(ge=0, le=128)
    """Largest Hamming distance (of 256 bits) at which two images count as near-identical."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> FilterParams:
        if self.window != "fingerprint" and not self.window[0] < self.window[1]:
            raise ValueError(f"window must be [low, high] with low < high, found {list(self.window)}")
        low, high = self.fingerprint_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"fingerprint_percentiles must rise within 0..100, found {[low, high]}")
        if self.test_fraction < 1 <= self.val_fraction + self.test_fraction:
            raise ValueError("val_fraction + test_fraction must leave something to train on (< 1); "
                             "test_fraction 1 alone makes everything test")
        if self.test_fraction == 1 and (self.use_given_split or self.window == "fingerprint"):
            raise ValueError("with test_fraction 1 there is no training part: window must be [low, high] and "
                             "use_given_split false")
        return self


@dataclass(frozen=True)
class Extracted:
    """The extraction's output, memory-mapped; rows of the arrays and of `index` agree."""

    images: np.ndarray  # (N,H,W) float32 in the scan's own units
    organ: np.ndarray  # (N,H,W) uint8
    lesion: np.ndarray  # (N,H,W) uint8
    index: pd.DataFrame
    scans: pd.DataFrame
    manifest: dict
    folder: Path

    @classmethod
    def open(cls, path: Path | str) -> Extracted:
        """Open `data/extracted`. Raises FilterError when a file or a manifest key is missing or rows don't agree."""
        path = Path(path)
        for name in ("images.npy", "organ.npy", "lesion.npy", "index.csv", "scans.csv", "foreground.npz",
                     "manifest.json"):
            if not (path / name).is_file():
                raise FilterError(f"{path / name} not found: run `dvc repro extract_slices`")
        images, organ, lesion = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("images", "organ", "lesion"))
        index = pd.read_csv(path / "index.csv", dtype=TEXT_COLUMNS)
        scans = pd.read_csv(path / "scans.csv", dtype={"scan_id": str, "patient_id": str, "given_split": str})
        manifest = read_json(path / "manifest.json")
        missing = [key for key in ("dataset", "anomalies", "lesion_threshold_px") if key not in manifest]
        if missing:
            raise FilterError(f"{path}/manifest.json lacks {missing}: run `dvc repro extract_slices` again")
        if not images.shape == organ.shape == lesion.shape == (len(index), *images.shape[1:]):
            raise FilterError(f"{path}: images {images.shape}, organ {organ.shape}, lesion {lesion.shape} and "
                              f"{len(index)} index rows don't agree")
        if "class_label" not in index:
            index["class_label"] = -1
        scans["given_split"] = scans["given_split"].fillna("")
        return cls(images, organ, lesion, index, scans, manifest, path)


def keep_by_organ(index: pd.DataFrame, min_organ_px: int) -> np.ndarray:
    """(N,) bool: strictly more than `min_organ_px` native organ pixels; -1 (no organ labels) always stays."""
    area = index["organ_px"].to_numpy()
    kept = (area > min_organ_px) | (area < 0)
    if not kept.any():
        raise FilterError(f"no slice has more than filter.min_organ_px = {min_organ_px} organ pixels: {len(index)} "
                          f"slices looked at, largest organ area {area.max() if len(area) else 0}. Lower it, or check "
                          "the data set's organ labels")
    return kept


def slice_labels(index: pd.DataFrame, lesion_threshold_px: int) -> np.ndarray:
    """(N,) int: the class label where the data set gives one (0/1), else 1 iff the native lesion area > threshold."""
    given = index["class_label"].to_numpy()
    return np.where(given >= 0, given, index["lesion_px"].to_numpy() > lesion_threshold_px).astype(int)


def fingerprint_window(foreground: dict[str, np.ndarray], training_scans: list[str],
                       percentiles: tuple[float, float]) -> tuple[float, float]:
    """CT window [low, high] in the scan's units: percentiles of the training scans' pooled foreground samples.

    The percentiles of nnU-Net's data fingerprint (Isensee et al. 2021), on which COIN windows its CT. Only training
    scans count, so nothing of the test scans enters the images.
    """
    missing = [scan for scan in training_scans if scan not in foreground]
    if missing:
        raise FilterError(f"foreground.npz has no samples of scan {missing[0]} ({len(missing)} scans lack them): run "
                          "`dvc repro extract_slices` again, or give filter.window as [low, high]")
    pooled = np.concatenate([foreground[scan] for scan in training_scans])
    pooled = pooled[np.isfinite(pooled)]
    if not len(pooled):
        raise FilterError(f"{len(training_scans)} training scans have no foreground sample: give filter.window as "
                          "[low, high]")
    low, high = (float(value) for value in np.percentile(pooled, percentiles))
    if not low < high:
        raise FilterError(f"the fingerprint window is empty: percentiles {list(percentiles)} are {low:g} and {high:g}. "
                          "Give filter.window as [low, high]")
    return low, high


def relative_height(index: pd.DataFrame) -> np.ndarray:
    """(N,) position of a slice among its scan's kept ones, 0 (lowest z) to 1 (highest); 0.5 where a scan keeps one."""
    z = index.groupby("scan_id")["z"]
    low, high = z.transform("min").to_numpy(float), z.transform("max").to_numpy(float)
    extent = high - low
    return np.where(extent > 0, (index["z"] - low) / np.where(extent > 0, extent, 1), 0.5)


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
            raise FilterError(f"{extracted.folder}/images.npy: slice {name} holds NaN; check its source file")
        organ[here], lesion[here] = extracted.organ[part], extracted.lesion[part]


def count_by_split(index: pd.DataFrame) -> dict[str, dict[str, int]]:
    """{split: {patients, scans, slices, healthy, abnormal}} for the manifest."""
    return {
        split: {
            "patients": int(part["patient_id"].nunique()), "scans": int(part["scan_id"].nunique()), "slices": len(part),
            "healthy": int((part["label"] == 0).sum()), "abnormal": int((part["label"] == 1).sum()),
        }
        for split, part in ((split, index[index["split"] == split]) for split in ("train", "val", "test"))
    }


@contextlib.contextmanager
def scratch_arrays(stage: str, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Disk-backed images (float16), organ and lesion (uint8) of `shape`, in .scratch/<stage>, gone after the block.

    The arrays of a whole data set needn't fit in memory. Raises DiskFullError.
    """
    folder = Path(".scratch") / stage
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with naming_a_full_disk(folder):
            folder.mkdir(parents=True)
            arrays = tuple(new_memmap(folder / f"{name}.npy", dtype, shape)
                           for name, dtype in (("images", np.float16), ("organ", np.uint8), ("lesion", np.uint8)))
        yield arrays
    finally:
        shutil.rmtree(folder, ignore_errors=True)

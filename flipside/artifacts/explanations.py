"""What a method says of each slice, on disk: written by the room explain, read by segment and evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.core.files import atomic_folder, read_json, write_json

CALLED_ABNORMAL = 0.5  # probability from which on a classifier calls a slice abnormal


@dataclass(frozen=True)
class Explanations:
    """One method's maps, aligned with `index` (one row per explained slice, the store's order)."""

    attribution: np.ndarray  # (N,H,W) float16 in [0,1]
    counterfactual: np.ndarray | None  # (N,H,W) float16 in [-1,1], where the method makes one
    # slice_id, steps, and what may be empty: the classifier's probability of abnormal (f_x, f_x_cf, f_x_ab, and
    # f_reconstruction of a generator's image before it is changed), and cycle_l1.
    index: pd.DataFrame
    timing: dict  # seconds, images, seconds_per_image, device, peak_memory_gb
    abnormal: np.ndarray | None = None  # (N,H,W) float16 in [-1,1], where the method also makes images abnormal
    roi: np.ndarray | None = None  # (N,H,W) float16 in [0,1], 0 where a method that has it leaves the scan as it is
    # (N,K,7) float32, of a method that changes blobs: centre x, y and both semi-axes as shares of the image's side,
    # angle of the first in radians, 1 if it may change, 1 if it is the most changed one. All 0: no search was needed.
    blobs: np.ndarray | None = None

    @classmethod
    def open(cls, path: Path | str) -> Explanations:
        path = Path(path)
        if not (path / "attribution.npy").is_file():
            raise FileNotFoundError(f"{path}/attribution.npy not found: run `dvc repro explain@{path.name}`")
        images = {name: np.load(path / f"{name}.npy", mmap_mode="r") if (path / f"{name}.npy").is_file() else None
                  for name in ("counterfactual", "abnormal_counterfactual", "roi", "blobs")}
        return cls(
            np.load(path / "attribution.npy", mmap_mode="r"),
            images["counterfactual"],
            pd.read_csv(path / "index.csv", dtype={"slice_id": str}),
            read_json(path / "timing.json"),
            images["abnormal_counterfactual"],
            images["roi"],
            images["blobs"],
        )


def write_explanations(path: Path | str, attribution: np.ndarray, counterfactual: np.ndarray | None,
                       index: pd.DataFrame, timing: dict, abnormal: np.ndarray | None = None,
                       roi: np.ndarray | None = None, blobs: np.ndarray | None = None) -> None:
    """Write one method's explanations whole; refuses NaN and values out of range, naming the first slice.

    `abnormal` (N,H,W) in [-1,1]: the images made abnormal, whose f stands in the index as `f_x_ab`; else that is empty,
    as are `f_reconstruction` and `cycle_l1` of a method without a reconstruction or a way back from its
    counterfactuals. `roi` (N,H,W) in [0,1]: where the method may change the scan. `blobs` (N,K,7): see `Explanations`.
    """
    _check(attribution, 0.0, 1.0, "attribution", index)
    images = {"counterfactual": counterfactual, "abnormal_counterfactual": abnormal}
    images = {name: values for name, values in images.items() if values is not None}
    for name, values in images.items():
        _check(values, -1.0, 1.0, name, index)
    if roi is not None:
        _check(roi, 0.0, 1.0, "roi", index)
        images["roi"] = roi
    with atomic_folder(path) as folder:
        np.save(folder / "attribution.npy", attribution.astype(np.float16))
        for name, values in images.items():
            np.save(folder / f"{name}.npy", values.astype(np.float16))
        if blobs is not None:
            np.save(folder / "blobs.npy", blobs.astype(np.float32))
        table = index.assign(**{name: index.get(name, np.nan) for name in ("f_x_ab", "f_reconstruction", "cycle_l1")})
        table = table[["slice_id", "f_x", "f_x_cf", "f_x_ab", "f_reconstruction", "steps", "cycle_l1"]]
        table.to_csv(folder / "index.csv", index=False)
        write_json(folder / "timing.json", timing)


def _check(maps: np.ndarray, low: float, high: float, name: str, index: pd.DataFrame) -> None:
    if len(maps) != len(index):
        raise ValueError(f"{len(maps)} {name} maps for {len(index)} slices")
    good = (np.isfinite(maps) & (maps >= low) & (maps <= high)).all(axis=(1, 2))
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(f"{name} of slice {index['slice_id'].iloc[first]} leaves [{low:g},{high:g}] or is not finite "
                         f"({(~good).sum()} of {len(good)} slices)")

"""A method's explanations on disk: maps, counterfactuals, and what only some methods give besides ("extras").

An extra is declared once, as a `Number`, an `Image` or a `Table`; the methods that give it name it. An extra that no
file here knows is written and read like the others: a number as a column of `index.csv`, an array as `<name>.npy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flipside.core.files import atomic_folder, new_memmap, read_json, write_json
from flipside.core.index_tables import read_index
from flipside.core.row_batches import row_batches

CALLED_ABNORMAL = 0.5  # probability from which on a classifier calls a slice abnormal


@dataclass(frozen=True)
class Number:
    """One number per slice, (N,): a column of `index.csv`."""

    name: str


@dataclass(frozen=True)
class Image:
    """One image per slice, (N,H,W) or, of slices with several channels, (N,C,H,W) float16 in [low, high]:
    `<name>.npy`."""

    name: str
    low: float
    high: float
    score: str | None = None  # column of `index.csv` for the classifier's probability of abnormal of this image


@dataclass(frozen=True)
class Table:
    """One small table per slice, (N,K,M) float32: `<name>.npy`."""

    name: str


Extra = Number | Image | Table

ATTRIBUTION = Image("attribution", 0, 1)
COUNTERFACTUAL = Image("counterfactual", -1, 1, score="f_x_cf")

STEPS = Number("steps")  # optimisation steps spent on the slice
CYCLE_L1 = Number("cycle_l1")  # mean |x - x_back| on the scale [0,1], of a way back from the counterfactual to the scan
F_RECONSTRUCTION = Number("f_reconstruction")  # probability of abnormal of the generator's image before it is changed
ABNORMAL = Image("abnormal_counterfactual", -1, 1, score="f_x_ab")  # the image that should be called abnormal
# A map with its sign, where the method draws one besides the counterfactual: what to add to the scan, as x_cf - x.
SIGNED_MAP = Image("signed_map", -1, 1)
ROI = Image("roi", 0, 1)  # 0 where the method leaves the scan as it is
# The blobs that a method changes, M = 7: centre x, y and both semi-axes as shares of the image's side, angle of the
# first in radians, 1 if the blob may change, 1 if it is the most changed one. All 0: the slice needed no search.
BLOBS = Table("blobs")

# The columns that every index.csv has, in this order, empty where a method gives nothing; other numbers follow them.
COLUMNS = ("slice_id", "f_x", "f_x_cf", "f_x_ab", "f_reconstruction", "steps", "cycle_l1")


@dataclass(frozen=True)
class Explanations:
    """One method's maps, aligned with `index` (one row per explained slice, the store's order)."""

    attribution: np.ndarray  # (N,H,W) float16 in [0,1]
    # As the slices, (N,H,W) or (N,C,H,W) float16 in [-1,1], where the method makes one.
    counterfactual: np.ndarray | None
    index: pd.DataFrame  # slice_id, the classifier's probability of abnormal f_x (of f_x_cf and f_x_ab too), numbers
    timing: dict[str, Any]  # seconds, images, seconds_per_image, device, peak_memory_gb
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)  # name of an Image or Table -> its array

    @classmethod
    def open(cls, path: Path | str) -> Explanations:
        """Memory-mapped explanations from their folder; FileNotFoundError says which stage writes them."""
        path = Path(path)
        if not (path / "attribution.npy").is_file():
            raise FileNotFoundError(f"{path}/attribution.npy not found: run `dvc repro explain@{path.name}`")
        arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(path.glob("*.npy"))}
        return cls(arrays.pop(ATTRIBUTION.name), arrays.pop(COUNTERFACTUAL.name, None),
                   read_index(path / "index.csv"), read_json(path / "timing.json"), arrays)

    @property
    def abnormal(self) -> np.ndarray | None:
        """As `counterfactual`: the images made abnormal, where the method makes some."""
        return self.extras.get(ABNORMAL.name)

    @property
    def signed_map(self) -> np.ndarray | None:
        """As `counterfactual`: the map with its sign, where the method draws one besides the counterfactual."""
        return self.extras.get(SIGNED_MAP.name)

    @property
    def roi(self) -> np.ndarray | None:
        """(N,H,W) float16 in [0,1]: where the method may change the scan, where it says so."""
        return self.extras.get(ROI.name)

    @property
    def blobs(self) -> np.ndarray | None:
        """(N,K,7) float32: the blobs that the method changes, see BLOBS, where it changes blobs."""
        return self.extras.get(BLOBS.name)


def write_explanations(path: Path | str, attribution: np.ndarray, counterfactual: np.ndarray | None,
                       index: pd.DataFrame, timing: dict[str, Any],
                       extras: Mapping[Image | Table, np.ndarray] | None = None,
                       records: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write one method's explanations whole; ValueError for NaN and values out of range, naming the first slice.

    index: slice_id, f_x, and what there is of the other COLUMNS and of further numbers. extras: arrays of N slices.
    records: name -> what stands in `<name>.json` beside them.
    """
    arrays: dict[Image | Table, np.ndarray] = {ATTRIBUTION: attribution}
    if counterfactual is not None:
        arrays[COUNTERFACTUAL] = counterfactual
    arrays.update(extras or {})
    for kind, values in arrays.items():
        if isinstance(kind, Image):
            _check(kind, values, index)
    with atomic_folder(path) as folder:
        for kind, values in arrays.items():
            dtype = np.float16 if isinstance(kind, Image) else np.float32
            stored = new_memmap(folder / f"{kind.name}.npy", dtype, values.shape)
            for part in row_batches(values.shape):  # they needn't fit into memory
                stored[part] = values[part]
            stored.flush()
        further = [name for name in index if name not in COLUMNS]
        index.reindex(columns=[*COLUMNS, *further]).to_csv(folder / "index.csv", index=False)
        for name, record in {"timing": timing, **(records or {})}.items():
            write_json(folder / f"{name}.json", record)


def _check(kind: Image, values: np.ndarray, index: pd.DataFrame) -> None:
    if len(values) != len(index):
        raise ValueError(f"{len(values)} {kind.name} maps for {len(index)} slices")
    good = np.concatenate([(np.isfinite(part) & (part >= kind.low) & (part <= kind.high)).all(
        axis=tuple(range(1, values.ndim))) for part in (values[rows] for rows in row_batches(values.shape))])
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        raise ValueError(f"{kind.name} of slice {index['slice_id'].iloc[first]} leaves [{kind.low:g},{kind.high:g}] or "
                         f"is not finite ({(~good).sum()} of {len(good)} slices)")

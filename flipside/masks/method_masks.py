"""One method's masks: stored under the headline's policy, made again of the stored maps under every other.

Making them takes a fraction of the time that explaining took, storing them all ten times the space. Both are made by
the same class of the same arrays, so what is made again is what would have been stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL, Explanations
from flipside.core import paths
from flipside.core.files import read_json, write_json
from flipside.core.index_tables import read_index
from flipside.core.packed_masks import PackedMasks, Rows, Stack, write_packed
from flipside.core.row_batches import row_batches
from flipside.core.store import SliceStore
from flipside.masks.extraction.morphology import Step
from flipside.masks.extraction.thresholds import HEADLINE, Cut, MaskError, MaskParams, binarise, read_cuts, write_cuts


@dataclass(frozen=True)
class _OfMaps:
    """A stack that is made of a method's maps, row by row."""

    maps: Stack  # (N,H,W) in [0,1]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.maps.shape

    def __len__(self) -> int:
        return len(self.maps)


@dataclass(frozen=True)
class MapsInOrgan(_OfMaps):
    """A method's maps (N,H,W) float16 in [0,1], 0 outside of the organ."""

    organ: Stack  # of all the store's slices
    positions: np.ndarray  # (N,) of the maps' slices in the store

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        return np.where(self.organ[self.positions[rows]] > 0, self.maps[rows], np.float16(0))


@dataclass(frozen=True)
class MadeMasks(_OfMaps):
    """Masks (N,H,W) of a method's maps; `masks[rows]` makes these rows alone, uint8 0/1."""

    cut: Cut
    steps: list[Step]
    empty: np.ndarray  # (N,) bool: slices that get none

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        chosen = np.arange(len(self))[rows]
        masks = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for part in row_batches(masks.shape):
            at = chosen[part]
            masks[part] = binarise(self.maps[at], self.cut, self.steps) & ~self.empty[at].reshape(-1, 1, 1)
        return masks


def maps_to_mark(explanations: Explanations, store: SliceStore, positions: np.ndarray, params: MaskParams) -> Stack:
    """A method's maps (N,H,W) as thresholds see them; positions (N,): of its slices in the store."""
    maps = explanations.attribution
    return MapsInOrgan(maps, store.organ, positions) if params.inside_organ else maps


def make_masks(maps: Stack, explanations: Explanations, cut: Cut, cleaned: bool, params: MaskParams) -> MadeMasks:
    """The masks of maps that `maps_to_mark` gave; cleaned: by the steps of `masks.morphology`."""
    empty = params.gate & (explanations.index["f_x"].to_numpy() < CALLED_ABNORMAL)
    return MadeMasks(maps, cut, params.morphology if cleaned else [], empty)


def write_masks(folder: Path, masks: MadeMasks, thresholds: dict[str, Cut], params: MaskParams) -> None:
    """Write the headline's masks and all that the others are made with."""
    write_packed(folder / f"{HEADLINE}.npy", masks)
    write_cuts(folder / "thresholds.json", thresholds)
    write_json(folder / "parameters.json", params.model_dump(mode="json"))


def open_masks(method: str, name: str, explanations: Explanations, store: SliceStore) -> Stack:
    """A method's masks (N,H,W) under a threshold policy, `<policy>` cleaned or `<policy>_raw`, aligned with its
    explanations.

    Raises FileNotFoundError where the artifact is missing, MaskError where it has no such policy or is of other slices.
    """
    folder, remedy = Path(paths.masks(method)), f"run `dvc repro extract_masks@{method}`"
    for file in ("index.csv", "parameters.json", "thresholds.json", f"{HEADLINE}.npy"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} not found: {remedy}")
    slice_ids, cuts = read_index(folder / "index.csv")["slice_id"], read_cuts(folder / "thresholds.json")
    if not slice_ids.equals(explanations.index["slice_id"]):
        raise MaskError(f"the slices of {folder}/index.csv are not those of {paths.explanations(method)}: {remedy}")
    if name not in cuts:
        raise MaskError(f"{folder}/thresholds.json has no threshold of the policy {name}; there are: "
                        f"{', '.join(cut for cut in cuts if not cut.endswith('_raw'))}")
    if name == HEADLINE:
        masks = PackedMasks.open(folder / f"{HEADLINE}.npy", store.sides[1])
        if masks.shape != (wanted := (len(slice_ids), *store.sides)):
            raise MaskError(f"{folder}/{HEADLINE}.npy holds masks {masks.shape}, expected {wanted}: {remedy}")
        return masks
    params = MaskParams.model_validate(read_json(folder / "parameters.json"))
    positions = pd.Index(store.index["slice_id"]).get_indexer(slice_ids)
    if (positions < 0).any():
        raise MaskError(f"{folder}/index.csv names slices that are not in {store.path}: {remedy}")
    maps = maps_to_mark(explanations, store, positions, params)
    return make_masks(maps, explanations, cuts[name], not name.endswith("_raw"), params)

"""Patches on and off the lesions, for a classifier that is pre-trained on them, as that of Major et al. (2020) was.

STRONG SUPERVISION: who trains on them has been told where lesions are. Off by default; `strong_supervision` in
params.yaml turns it on, and all results of such a run are marked.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pydantic

from flipside.core.params import Params
from flipside.scans.pixels import count_in_squares


class PatchError(ValueError):
    """Slices from which no patches of both kinds can be cut."""


class PatchParams(Params):
    """Section `mass_patches`."""

    side_fraction: float = pydantic.Field(gt=0, le=1)
    """Side of a patch as a share of the image's shorter side."""
    per_slice: int = pydantic.Field(ge=2)
    """Number of patches cut from each slice."""


class StrongSupervision(pydantic.RootModel[Annotated[list[Literal["mass_patches"]], pydantic.Field(max_length=1)]]):
    """Section `strong_supervision`: [] is off."""


def choose_patches(lesion: np.ndarray, organ: np.ndarray, side: int, count: int,
                   generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corners (K,2) of one slice's patches, and whether each shows a lesion (K,) bool.

    lesion, organ: (H,W) 0/1. Half of `count` show at least half of what a patch can show of the lesion; the others show
    none of it, and their centre lies in the organ (anywhere in a slice without organ). A slice without lesion gives the
    second kind alone; a kind that fits nowhere in it is left out.
    """
    shown = count_in_squares(np.asarray(lesion) > 0, side)  # (h,w)
    centred = np.asarray(organ)[side // 2 :, side // 2 :][: shown.shape[0], : shown.shape[1]] > 0
    background = (shown == 0) & (centred | (not np.any(organ)))
    on_lesion = count // 2 if shown.any() else 0
    corners, kinds = [np.empty((0, 2), int)], [np.empty(0, bool)]
    for number, places, kind in ((on_lesion, shown >= max(1, shown.max() / 2), True),
                                 (count - on_lesion, background, False)):
        found = np.argwhere(places)
        if number and len(found):
            corners.append(found[generator.integers(len(found), size=number)])
            kinds.append(np.full(number, kind))
    return np.concatenate(corners), np.concatenate(kinds)

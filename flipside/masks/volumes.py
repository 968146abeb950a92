"""A volume's mask made to agree from slice to slice: a vote along z, holes filled, small or lesser components dropped.

Masks are found slice by slice; a lesion is a body. The steps come in this order, each of them can be switched off.
Components are 26-connected, holes are what no 6-connected way leads out of.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator
from scipy import ndimage

from flipside.core.params import Params

TOUCHING = np.ones((3, 3, 3), bool)  # 26 neighbours


class VolumeParams(Params):
    """Section `segment_scans.volumes`: the clean-up of a volume's mask; single images are left as they are."""

    vote_slices: int = Field(ge=1)
    """Slices that vote on each pixel, the slice itself in the middle: it is marked where most of them mark it. Only
    slices that were explained have a vote, and an even vote leaves the pixel as it is. Odd; 1: no vote."""
    fill_holes: bool
    """Whether hollows that are closed on all sides are filled."""
    components: Literal["all", "largest"]
    """Which connected components stay: all that are large enough, or the largest alone."""
    least_mm3: float = Field(ge=0)
    """Volume in mm³ below which a component is dropped; 0: none."""

    @field_validator("vote_slices")
    @classmethod
    def _odd(cls, slices: int) -> int:
        if slices % 2 == 0:
            raise ValueError("must be odd: the slice itself stands in the middle")
        return slices


def clean_volume(mask: np.ndarray, explained: np.ndarray, voxel_mm3: float, params: VolumeParams) -> np.ndarray:
    """The cleaned mask (Z,R,C) uint8 of a mask (Z,R,C) 0/1; explained (K,): the slices that were looked at."""
    voted = vote_along_z(mask > 0, explained, params.vote_slices)
    box = bounding_box(voted)
    if box is None:
        return voted.view(np.uint8)
    inside = voted[box]  # a view: only what is marked is worked on
    if params.fill_holes:
        inside[...] = ndimage.binary_fill_holes(inside)
    inside &= _kept(inside, voxel_mm3, params)
    return voted.view(np.uint8)


def vote_along_z(mask: np.ndarray, explained: np.ndarray, slices: int) -> np.ndarray:
    """A new mask (Z,R,C) bool by the vote of `slices` neighbouring slices on each pixel of a mask (Z,R,C) bool."""
    result, known = mask.copy(), set(np.asarray(explained, int).tolist())
    if slices == 1:
        return result
    for z in sorted(known):
        voters = [near for near in range(z - slices // 2, z + slices // 2 + 1) if near in known]
        if mask[voters[0] : voters[-1] + 1].any():
            votes = mask[voters].sum(axis=0, dtype=np.int16) * 2  # (R,C)
            result[z] = (votes > len(voters)) | ((votes == len(voters)) & mask[z])
    return result


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest box around what a mask (Z,R,C) marks; None where it marks nothing."""
    found: list[slice] = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        marked = np.flatnonzero(mask.any(axis=others))
        if len(marked) == 0:
            return None
        found.append(slice(int(marked[0]), int(marked[-1]) + 1))
    return found[0], found[1], found[2]


def largest_component_voxels(mask: np.ndarray) -> int:
    """Voxels of the largest component of a mask (Z,R,C) 0/1; an image's has one slice."""
    box = bounding_box(mask)
    return 0 if box is None else int(_sizes(mask[box])[1].max())


def _kept(mask: np.ndarray, voxel_mm3: float, params: VolumeParams) -> np.ndarray:
    labels, sizes = _sizes(mask)
    kept = sizes * voxel_mm3 >= params.least_mm3
    if params.components == "largest":
        kept &= np.arange(len(sizes)) == int(sizes.argmax())  # of equal ones the first
    kept[0] = False
    return kept[labels]


def _sizes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The component of each voxel (0: none), and the voxels of each component, of component 0 none."""
    labels, _ = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes

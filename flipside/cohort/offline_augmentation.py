"""Class balance by augmented copies of the training part's rarer class, made once.

TACE (Rossi et al. 2024, section on data sets) corrects the classes' imbalance by augmentation before training; here the
training part alone is touched. The transforms are this project's choice, the paper names none.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
import pandas as pd
import pydantic
from scipy import ndimage

from flipside.core.params import Params


class OfflineAugmentationParams(Params):
    """Section `offline_augmentation`."""

    enabled: bool
    """Whether slices of the training part's rarer class are copied until both classes are equally frequent."""
    transforms: list[Literal["flip", "rotation", "translation"]] = pydantic.Field(min_length=1)
    """Transforms of which each copy gets one, at random."""
    rotation_degrees: float = pydantic.Field(gt=0, le=45)
    """A copy is rotated by at most this angle in either direction, drawn uniformly."""
    translation_fraction: float = pydantic.Field(gt=0, lt=0.5)
    """A copy is moved by at most this share of the image's side in either direction, drawn uniformly."""


def plan_copies(index: pd.DataFrame, seed: int) -> np.ndarray:
    """(C,) positions to copy so that the training part's classes are equally frequent.

    `index` has split and label. Every slice of the rarer class is copied equally often, give or take one; never a
    validation or test slice.
    """
    rows = [np.flatnonzero((index["split"] == "train") & (index["label"] == label)) for label in (0, 1)]
    rarer, commoner = sorted(rows, key=len)
    missing = len(commoner) - len(rarer)
    if not missing or not len(rarer):
        return np.empty(0, int)
    order = np.random.default_rng([seed % 2**32, len(index)]).permutation(rarer)
    return np.resize(order, missing)


def name_copies(index: pd.DataFrame, sources: np.ndarray) -> pd.DataFrame:
    """Index rows of the copies of the slices at `sources` (C,); slice_id gets :a1, :a2, ..."""
    copied = index.iloc[sources].reset_index(drop=True)
    number = copied.groupby("slice_id").cumcount() + 1
    return copied.assign(slice_id=copied["slice_id"] + ":a" + number.astype(str))


def augment(image: np.ndarray, organ: np.ndarray, lesion: np.ndarray, params: OfflineAugmentationParams, seed: int,
            slice_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One transformed copy: left-right flip, small rotation or translation, of the image (H,W) or (C,H,W) with each
    of its channels and of both masks (H,W) alike.

    The image (float16 in [-1,1]) is interpolated bilinearly and filled with -1 (air), the masks (uint8) are nearest,
    filled with 0. The draw depends on the seed and the copy's name alone.
    """
    generator = np.random.default_rng([seed % 2**32, zlib.crc32(slice_id.encode())])
    kind = params.transforms[generator.integers(len(params.transforms))]
    if kind == "flip":
        image, organ, lesion = (np.ascontiguousarray(array[..., ::-1]) for array in (image, organ, lesion))
        return image, organ, lesion
    matrix, offset = np.eye(2), np.zeros(2)
    if kind == "rotation":
        angle = np.deg2rad(generator.uniform(-params.rotation_degrees, params.rotation_degrees))
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = (np.array(organ.shape) - 1) / 2
        offset = centre - matrix @ centre
    else:
        offset = generator.uniform(-params.translation_fraction, params.translation_fraction, 2) * organ.shape
    planes = image.astype(np.float32).reshape(-1, *organ.shape)  # (C,H,W)
    moved = np.stack([ndimage.affine_transform(plane, matrix, offset, order=1, cval=-1) for plane in planes])
    organ, lesion = (ndimage.affine_transform(mask, matrix, offset, order=0, cval=0) for mask in (organ, lesion))
    return np.clip(moved, -1, 1).astype(np.float16).reshape(image.shape), organ, lesion

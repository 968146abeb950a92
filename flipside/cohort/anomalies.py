"""COIN's synthetic anomalies: bright blobs in a kidney, drawn once from a seed and frozen, in every split.

The recipe is that of the synthetic anomaly in COIN (Shvetsov et al. 2024, Figure 3), with the constants of its
published configuration; lengths are given as fractions of the image, so that it holds at any size.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pydantic
from scipy import ndimage

from flipside.core.packed_masks import Stack
from flipside.core.params import Params
from flipside.core.progress import progress


class AnomalyError(ValueError):
    """Slices that can't take synthetic anomalies."""


class AnomalyParams(Params):
    """Section `anomalies`."""

    probability: float = pydantic.Field(ge=0, le=1)
    """Probability of an anomaly in one draw of one slice."""
    draws_per_slice: int = pydantic.Field(ge=1)
    """Number of independent draws, each a copy of the slice; more than 1 for small data sets."""
    template_fraction: float = pydantic.Field(gt=0, le=1)
    """Side of the template as a share of the image's side; the paper: 20 / 512."""
    sigma: float = pydantic.Field(gt=0)
    """Standard deviation of the Gaussian on the template's [-1,1]^2 grid."""
    gt_threshold: float = pydantic.Field(gt=0, lt=1)
    """The lesion mask is where the template exceeds this value."""
    amplitude: float = pydantic.Field(gt=0, le=1)
    """Factor of the template when it is added to the image on [0,1]."""
    scale_range: tuple[float, float]
    """Least and greatest factor of the template's size, drawn uniformly."""
    distortion: float = pydantic.Field(ge=0, lt=1)
    """Each axis is stretched by a factor of at most 1 +- this, drawn uniformly."""
    distortion_probability: float = pydantic.Field(ge=0, le=1)
    """Probability that an anomaly is stretched."""
    rotation_degrees: float = pydantic.Field(ge=0, le=180)
    """An anomaly is turned by at most this angle in either direction, drawn uniformly."""
    rotation_probability: float = pydantic.Field(ge=0, le=1)
    """Probability that an anomaly is turned."""
    min_organ_bbox_fraction: float = pydantic.Field(ge=0, lt=1)
    """The bounding box of an organ part must be larger than this share of the image's area; the paper: 400 / 512^2."""
    bbox_margin: float = pydantic.Field(ge=0, lt=0.5)
    """Share by which the bounding box is shrunk on each side before an anomaly's centre is drawn in it."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> AnomalyParams:
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"scale_range must be [low, high] with 0 < low <= high, found {list(self.scale_range)}")
        return self


@dataclass(frozen=True)
class Anomaly:
    """One blob: its centre in pixels and how the template is warped."""

    row: int
    column: int
    scale: float
    stretch: tuple[float, float]  # of the template's rows and columns
    angle: float  # radians


def draw_anomaly(organ: np.ndarray, params: AnomalyParams, generator: np.random.Generator) -> Anomaly | str:
    """One draw for a slice with `organ` (H,W) uint8; an Anomaly, or why there is none: "healthy" when chance says so.

    One of the two largest connected parts of the organ is picked, and a centre in it, inside its bounding box less the
    margin. Sampling among the allowed pixels is what rejection sampling in the box gives, without a retry limit.
    """
    if generator.random() >= params.probability:
        return "healthy"
    components, count = ndimage.label(organ)
    if not count:
        return "no organ"
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    largest = np.argsort(-sizes, kind="stable")[:2]
    chosen = int(largest[generator.integers(len(largest))])
    box = ndimage.find_objects(components)[chosen]
    height, width = (side.stop - side.start for side in box)
    if not height * width > params.min_organ_bbox_fraction * organ.size:
        return "organ part too small"
    inside = components[box] == chosen + 1  # (h,w)
    rows, columns = (int(np.floor(params.bbox_margin * side)) for side in (height, width))
    allowed = np.argwhere(inside[rows : height - rows, columns : width - columns])
    if not len(allowed):
        return "no centre inside the organ part"
    row, column = allowed[generator.integers(len(allowed))]
    scale = generator.uniform(*params.scale_range)
    stretch = (1.0, 1.0)
    if generator.random() < params.distortion_probability:
        vertical, horizontal = 1 + generator.uniform(-params.distortion, params.distortion, 2)
        stretch = (vertical, horizontal)
    angle = 0.0
    if generator.random() < params.rotation_probability:
        angle = np.deg2rad(generator.uniform(-params.rotation_degrees, params.rotation_degrees))
    return Anomaly(int(box[0].start + rows + row), int(box[1].start + columns + column), scale, stretch, angle)


def add_anomaly(image: np.ndarray, anomaly: Anomaly, params: AnomalyParams) -> tuple[np.ndarray, np.ndarray]:
    """The slice with the blob, (H,W) or (C,H,W) float16 in [-1,1], and its mask (H,W) uint8: the full blob, organ or
    not. COIN's slices have one channel; of several, the blob is added to each alike.

    On [0,1]: image + amplitude * template, clipped at 1. A grid distortion of one step is a stretch of each axis; the
    template's Gaussian is evaluated at the warped coordinates, so nothing is interpolated.
    """
    height, width = image.shape[-2:]
    pixels = max(params.template_fraction * height, 3.0)  # side of the template
    reach = int(np.ceil(pixels / 2 * anomaly.scale * max(anomaly.stretch) * np.sqrt(2)))
    top, left = max(anomaly.row - reach, 0), max(anomaly.column - reach, 0)
    rows, columns = np.ogrid[top : min(anomaly.row + reach + 1, height), left : min(anomaly.column + reach + 1, width)]
    rows, columns = rows - anomaly.row, columns - anomaly.column
    cosine, sine = np.cos(anomaly.angle), np.sin(anomaly.angle)
    unit = (pixels - 1) / 2 * anomaly.scale  # pixels per unit of the template's [-1,1] grid
    u = (cosine * rows + sine * columns) / (unit * anomaly.stretch[0])  # (h,w)
    v = (cosine * columns - sine * rows) / (unit * anomaly.stretch[1])
    template = np.exp(-(u**2 + v**2) / (2 * params.sigma**2)) * ((abs(u) <= 1) & (abs(v) <= 1))
    patch = np.s_[..., top : top + template.shape[0], left : left + template.shape[1]]
    changed = image.astype(np.float32)
    changed[patch] = np.minimum(changed[patch] + 2 * params.amplitude * template, 1)
    mask = np.zeros((height, width), np.uint8)
    mask[patch] = template > params.gt_threshold
    return changed.astype(np.float16), mask


def plan_anomalies(organ: Stack, slice_ids: list[str], params: AnomalyParams, seed: int
                   ) -> tuple[list[Anomaly | None], dict[str, int]]:
    """One entry per slice and draw (slice 0 draw 0, slice 0 draw 1, ...), and how often each outcome occurred.

    A draw depends on the seed, the slice's name and its number alone: slices that come or go change no other slice.
    """
    plan: list[Anomaly | None] = []
    outcomes: Counter[str] = Counter()
    for position, slice_id in enumerate(progress(slice_ids, "drawing anomalies", total=len(slice_ids))):
        mask = np.asarray(organ[position])
        for draw in range(params.draws_per_slice):
            generator = np.random.default_rng([seed % 2**32, zlib.crc32(slice_id.encode()), draw])
            drawn = draw_anomaly(mask, params, generator)
            outcomes[drawn if isinstance(drawn, str) else "anomaly"] += 1
            plan.append(drawn if isinstance(drawn, Anomaly) else None)
    if not outcomes["anomaly"] and params.probability > 0:
        raise AnomalyError(f"no anomaly could be drawn in {len(slice_ids)} slices ({dict(outcomes)}): check the organ "
                           "masks or lower anomalies.min_organ_bbox_fraction")
    return plan, dict(outcomes)


def draw_slices(index: pd.DataFrame, organ: Stack, params: AnomalyParams, dataset: str, seed: int
                ) -> tuple[pd.DataFrame, list[Anomaly | None], dict[str, int]]:
    """Index of the drawn slices, the anomaly of each of them (None: healthy), and how often each outcome occurred.

    index: a store's, N rows, all healthy; organ: (N,H,W) uint8. Each slice becomes `draws_per_slice` rows, labelled by
    their anomaly; with several, slice_id gets :d0, :d1, ... Raises AnomalyError where a slice is abnormal already.
    """
    present = int((index["label"] == 1).sum())
    if present:
        raise AnomalyError(f"{present} of {len(index)} slices are abnormal already: synthetic anomalies are for "
                           f"healthy data sets; set datasets.{dataset}.anomalies to false")
    plan, outcomes = plan_anomalies(organ, list(index["slice_id"]), params, seed)
    drawn = index.loc[index.index.repeat(params.draws_per_slice)].reset_index(drop=True)
    drawn["label"] = [int(anomaly is not None) for anomaly in plan]
    drawn["draw"] = np.arange(len(drawn)) % params.draws_per_slice
    if params.draws_per_slice > 1:
        drawn["slice_id"] += ":d" + drawn["draw"].astype(str)
    return drawn, plan, outcomes

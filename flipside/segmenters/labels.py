"""Labels that a segmenter learns from: of the pixels of the training slices, without any lesion mask.

Pseudo-masks come of probabilities: those of the mask network `flip_mask`, in later rounds those of the student itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.ndimage import binary_dilation, uniform_filter
from torch import Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.core import ranks
from flipside.core.params import Params
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.generator import filled
from flipside.masks.extraction.morphology import clean

SMOOTH_PX = 3  # the difference is a mean over so many pixels each way
GREATEST = 0.9  # quantile of the differences that counts as the greatest one
LEAST_GAP = 1.0  # by how much more the logit must fall where the mask is filled than where its mirror image is
BATCH = 32


class TransplantParams(Params):
    """Lesions cut out of abnormal slices and put into healthy ones, where the mask is exact."""

    share: float = Field(ge=0, le=1)
    """Share of the healthy slices of a batch that get one; 0: none."""
    contrast: tuple[float, float]
    """Least and greatest factor on the lesion's difference from the healthy content."""
    dark: float = Field(ge=0, le=1)
    """Probability with which the difference's sign is turned."""
    shift: float = Field(ge=0)
    """Largest shift, as a fraction of the size."""
    scale: float = Field(ge=0, lt=1)
    """Largest change of scale."""
    rotate_degrees: float = Field(ge=0)
    """Largest rotation in degrees, either way."""


class PseudoMaskParams(Params):
    """Section `pseudo_masks`: what the student of `flip_mask` learns from."""

    cut: float = Field(gt=0, lt=1)
    """Threshold of the probability."""
    grow: float = Field(ge=0)
    """How far around the cut mask its outline is looked for, as a fraction of the side."""
    change: tuple[float, float]
    """Two shares of a slice's greatest difference from the healthy content there: lesion is what differs by the second
    or more; pixels on which the two cleaned masks disagree teach nothing. [0, 0]: the cut mask as it is, grown."""
    morphology: list[Literal["open", "close", "largest_component"]]
    """Steps that clean the masks, in their order."""
    verify: bool
    """Keep a pseudo-mask only if filling it with healthy content lowers the classifier's logit by at least 1 more than
    filling as much on the other side does."""
    transplants: TransplantParams
    rounds: int = Field(ge=1)
    """Times that the student is trained; after each it labels the training slices for the next."""

    @model_validator(mode="after")
    def _in_order(self) -> PseudoMaskParams:
        if not 0 <= self.change[0] <= self.change[1] < 1:
            raise ValueError(f"`change` is {list(self.change)}, expected two shares from 0 to below 1, the lower one "
                             "first")
        return self


@dataclass(frozen=True)
class Labels:
    """Of the N training slices, on the device but for `teaches`."""

    lesion: Tensor  # (N,H,W) bool
    ignored: Tensor  # (N,H,W) bool, pixels that teach nothing
    teaches: Tensor  # (N,) bool, on the CPU; slices that are shown at all
    change: Tensor | None = None  # (N,C,H,W) float16, what fills with the lesion: x - x_cf; to transplant


class MaskTeacher(Protocol):
    """What is called of the mask network."""

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor]: ...  # M (B,1,H,W) in [0,1] and content (B,C,H,W)


@torch.no_grad()
def pseudo_labels(data: TrainingSlices, teacher: MaskTeacher, probability: Callable[[Tensor], Tensor],
                  params: PseudoMaskParams) -> Labels:
    """Labels of the training slices: healthy ones are empty, of abnormal ones the cut `probability`.

    probability: images (B,C,H,W) -> (B,1,H,W) in [0,1]. A slice labelled abnormal whose mask is empty or not verified
    doesn't teach.
    """
    device, count, sides = data.runtime.device, len(data.images), data.images.shape[-2:]
    lesion, ignored = (torch.zeros(count, *sides, dtype=torch.bool, device=device) for _ in range(2))
    teaches = ~data.labels
    change = torch.zeros(count, *data.images_at(torch.arange(1)).shape[1:], dtype=torch.float16, device=device)
    for rows in data.labels.nonzero().squeeze(1).split(BATCH):
        images, on_device = data.images_at(rows), rows.to(device)
        found = probability(images).float()  # (B,1,H,W)
        content = teacher.parts(images)[1]
        masks, unsure = outline(found[:, 0], (images - content).abs().mean(dim=1), params)
        kept = masks.any(dim=(1, 2))
        if params.verify:
            kept &= verified(data.classifier, images, masks.unsqueeze(1).float(), content)
        lesion[on_device], ignored[on_device], teaches[rows] = masks, unsure, kept.cpu()
        change[on_device] = ((images - content) * (masks | unsure).unsqueeze(1)).half()
    return Labels(*(ranks.from_writer(each) for each in (lesion, ignored, teaches, change)))


def describe(labels: Labels, data: TrainingSlices) -> str:
    """How many pseudo-masks there are, and how large they are, in words."""
    taught = labels.teaches & data.labels
    if not taught.any():
        return (f"WARNING: none of the {int(data.labels.sum())} abnormal training slices has a pseudo-mask, so the "
                "student learns to mark nothing: lower `pseudo_masks.cut`, set `pseudo_masks.verify` to false, or "
                "train generators.flip_mask for longer")
    share = labels.lesion[taught.to(labels.lesion.device)].float().mean()
    return (f"{int(taught.sum())} of {int(data.labels.sum())} abnormal training slices have a pseudo-mask, of "
            f"{100 * float(share):.2f} % of their pixels")


def outline(probability: Tensor, change: Tensor, params: PseudoMaskParams) -> tuple[Tensor, Tensor]:
    """Lesion and unsure pixels, (B,H,W) bool each, of probabilities and differences from healthy content (B,H,W).

    Where filling flips the classifier is known to a pixel or two only. What differs from the healthy content in and
    next to it is the lesion: see `PseudoMaskParams`.
    """
    steps, radius = params.morphology, round(params.grow * probability.shape[-1])
    cut = clean(np.asarray(probability.cpu().numpy() >= params.cut), steps)
    near = np.stack([binary_dilation(mask, iterations=radius) for mask in cut]) if radius else cut
    smooth = uniform_filter(change.float().cpu().numpy(), (1, SMOOTH_PX, SMOOTH_PX), mode="nearest")
    greatest = np.array([np.quantile(values[mask], GREATEST) if mask.any() else np.inf
                         for values, mask in zip(smooth, near, strict=True)])  # (B,)
    wide, narrow = (torch.as_tensor(clean(near & (smooth >= share * greatest[:, None, None]), steps)).to(
        probability.device) for share in params.change)
    return narrow, wide & ~narrow


@torch.no_grad()
def verified(classifier: Classifier, images: Tensor, masks: Tensor, content: Tensor) -> Tensor:
    """Of which masks (B,1,H,W) of 0 and 1 the filling lowers the logits of their images (B,C,H,W) by at least
    LEAST_GAP more than filling elsewhere does, (B,) bool.

    Elsewhere: the mask mirrored, without its own pixels; where nothing is left of it, the image as it is.
    """
    elsewhere = masks.flip(3) * (1 - masks)
    here, there = (classifier(filled(images, where, content)).float() for where in (masks, elsewhere))
    return here <= there - LEAST_GAP

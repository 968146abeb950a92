"""Training of a segmenter: a U-Net on labelled pixels of the training slices, whoever labelled them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from flipside.classifiers.augmentation import Affine, AnyTransform, Crop, HorizontalFlip, VerticalFlip, augment, uniform
from flipside.core import ranks
from flipside.core.checkpoint import Scratch
from flipside.core.params import Params
from flipside.core.runtime import generator_for
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.state import Part, Trained, TrainingState, update
from flipside.generators.training.adversarial import move_average
from flipside.segmenters.labels import Labels, TransplantParams

MOVING = (Affine, Crop, HorizontalFlip, VerticalFlip)  # transforms that move pixels, and so their labels

Relabel = Callable[[nn.Module], Labels]


class SegmenterParams(Params):
    """Section `segmenter`: network and training of the segmenters, which differ in their labels alone."""

    channels: list[int] = Field(min_length=1)
    """Channels of the U-Net, the first at the images' size, each further one at half the size of the one before."""
    dice_weight: float = Field(ge=0)
    """Weight of the soft Dice loss beside the cross-entropy."""
    learning_rate: float = Field(gt=0)
    """Adam's learning rate at the start; a half cosine leads it to 0."""
    batch_size: PositiveInt
    """Slices in a training step, half of them labelled abnormal."""
    steps: PositiveInt
    """Training steps."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the exponential moving average of the weights, which is what is saved."""
    augmentation: list[AnyTransform]
    """Random transforms of the slices, as for classifiers; those that move pixels move the labels too."""
    seed_offset: int = Field(ge=0)
    """Added to `seed`: repeats the training with other random numbers."""

    def learning_rate_at(self, step: int) -> float:
        """A half cosine from `learning_rate` down to 0 at the last step."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def train_segmenter(student: nn.Module, data: TrainingSlices, labels: Labels, params: SegmenterParams, seed: int,
                    scratch: Scratch, transplants: TransplantParams | None = None, rounds: int = 1,
                    relabel: Relabel | None = None) -> Trained:
    """Train `student`, images (B,C,H,W) -> logits (B,1,H,W), and give the average of its weights.

    `relabel` gives the labels of each round after the first, of the student that the round before ended with. What is
    seen at a step depends on seed and step alone; a killed training continues from `scratch`. Raises FloatingPointError
    for a loss that is NaN or infinite.
    """
    runtime = data.runtime
    student = runtime.place(student).train()
    average, labeller = (copy.deepcopy(student).requires_grad_(False) for _ in range(2))
    optimizer = torch.optim.Adam(student.parameters(), params.learning_rate, fused=True)
    parts: dict[str, Part] = {"student": student, "average": average, "labeller": labeller, "optimizer": optimizer}
    state = TrainingState(scratch, rounds * params.steps)
    state.restore(**parts)
    if relabel and state.step > params.steps and state.step % params.steps:  # killed within a later round
        labels = relabel(labeller)
    for step in range(state.step, rounds * params.steps):
        if relabel and step and step % params.steps == 0:
            labeller.load_state_dict(average.state_dict())
            labels = relabel(labeller)
        optimizer.param_groups[0]["lr"] = params.learning_rate_at(step % params.steps)
        batch = draw_batch(data, labels, params, transplants, generator_for(seed, step))
        images, lesion, weight = (ranks.share(part) for part in batch)
        with runtime.autocast():
            logits = student(images)
        terms = segmentation_terms(logits.float(), lesion, weight, params.dice_weight)
        update(optimizer, *terms.values())
        move_average(average, student, params.ema_decay)
        state.record(terms, **parts)
    return state.finish(average)


def draw_batch(data: TrainingSlices, labels: Labels, params: SegmenterParams, transplants: TransplantParams | None,
               generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B,C,H,W), lesion in [0,1] and weight in [0,1] of their pixels (B,1,H,W), augmented.

    Half of the slices are labelled abnormal where the split has both labels.
    """
    kinds = [rows for rows in ((labels.teaches & data.labels).nonzero().squeeze(1),
                               (labels.teaches & ~data.labels).nonzero().squeeze(1)) if len(rows)]
    sizes = [params.batch_size // 2, params.batch_size - params.batch_size // 2] if len(kinds) == 2 else [
        params.batch_size]
    drawn = [rows[torch.randint(len(rows), (size,), generator=generator)]
             for rows, size in zip(kinds, sizes, strict=True)]
    rows = torch.cat(drawn)
    images, on_device = data.images_at(rows), rows.to(data.runtime.device)
    lesion, ignored = (mask[on_device].unsqueeze(1).float() for mask in (labels.lesion, labels.ignored))
    if transplants and transplants.share and labels.change is not None and len(drawn) == 2:
        count = round(transplants.share * sizes[1])
        donors = drawn[0][torch.randint(sizes[0], (count,), generator=generator)].to(data.runtime.device)
        change, mask = labels.change[donors].float(), labels.lesion[donors].unsqueeze(1).float()
        into = slice(sizes[0], sizes[0] + count)
        images[into], lesion[into] = transplanted(images[into], change, mask, transplants, generator)
    for transform in params.augmentation:
        if not isinstance(transform, MOVING):
            images = augment(images, [transform], generator)
            continue
        # What comes in from outside is -1: air, no lesion, not ignored.
        stack = transform(torch.cat([images, 2 * lesion - 1, 2 * ignored - 1], dim=1), generator)
        images, lesion, ignored = stack[:, :-2], (stack[:, -2:-1] + 1) / 2, (stack[:, -1:] + 1) / 2
    return images, lesion, 1 - ignored


def transplanted(healthy: Tensor, change: Tensor, lesion: Tensor, params: TransplantParams,
                 generator: Generator) -> tuple[Tensor, Tensor]:
    """Healthy images (B,C,H,W) with a lesion each, and its mask (B,1,H,W) of 0 and 1.

    `change` (B,C,H,W): what the lesion adds to healthy content; it is moved together with its mask `lesion` (B,1,H,W),
    and its contrast drawn.
    """
    moving = Affine(name="affine", probability=1.0, shift=params.shift, scale=params.scale,
                    rotate_degrees=params.rotate_degrees)
    stack = moving(torch.cat([change, lesion], dim=1) - 1, generator) + 1  # 0 comes in from outside
    contrast = uniform(len(healthy), *params.contrast, generator)
    turned = torch.rand(len(healthy), generator=generator) < params.dark
    factor = torch.where(turned, -contrast, contrast).to(healthy.device)[:, None, None, None]
    return (healthy + factor * stack[:, :-1]).clamp(-1, 1), (stack[:, -1:] >= 0.5).float()


def segmentation_terms(logits: Tensor, lesion: Tensor, weight: Tensor, dice_weight: float) -> dict[str, Tensor]:
    """Weighted cross-entropy, and 1 - soft Dice over all pixels of the batch; all (B,1,H,W), lesion and weight in
    [0,1]. Dice has 1 added above and below, so that a batch without a lesion has a gradient too. Sums are over the
    whole batch, so each rank gets the whole batch's terms."""
    entropy = F.binary_cross_entropy_with_logits(logits, lesion, reduction="none")
    terms = {"cross_entropy": ranks.summed((weight * entropy).sum()) / ranks.summed(weight.sum()).clamp(min=1)}
    if dice_weight:
        found = weight * torch.sigmoid(logits)
        both, either = (ranks.summed(each) for each in (
            (found * lesion).sum(), found.sum() + (weight * lesion).sum()))
        terms["dice"] = dice_weight * (1 - (2 * both + 1) / (either + 1))
    return terms

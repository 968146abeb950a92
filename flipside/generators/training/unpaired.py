"""What CX-GAN and VA-GAN share: slices of either label, in no relation to each other, and no classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from flipside.classifiers.augmentation import AnyTransform, augment
from flipside.generators.base.data import Batch, TrainingSlices, draw_by_label
from flipside.generators.training.adversarial import TrainingParams


class UnpairedParams(TrainingParams):
    """Adversarial training on slices of either label."""

    augmentation: list[AnyTransform]
    """Random transforms of each image on its own, as for classifiers; []: none."""


@dataclass(frozen=True, kw_only=True)
class UnpairedBatch(Batch):
    """Slices labelled abnormal (`images`), and as many labelled healthy."""

    healthy: Tensor  # (B,C,H,W) in [-1,1]


def draw_unpaired(params: UnpairedParams, data: TrainingSlices, generator: Generator) -> UnpairedBatch:
    """As many slices of either label, augmented. Logits and organ are those of the slices before augmentation."""
    rows, healthy_rows = draw_by_label(data, params.batch_size, generator)
    batch = data.batch(rows, generator)
    images = augment(batch.images, params.augmentation, generator)
    healthy = augment(data.images_at(healthy_rows), params.augmentation, generator)
    return UnpairedBatch(**vars(batch) | {"images": images}, healthy=healthy)

"""What a generator learns from: the training split on the device, and what a method sees of it at one step."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from flipside.classifiers.augmentation import AnyTransform, augment
from flipside.classifiers.backbones import predict_features, predict_logits
from flipside.core.params import Params
from flipside.core.runtime import Runtime, draw_batch
from flipside.core.store import SliceStore


class TrainingParams(Params):
    """What the training loop itself reads of a generator's parameters."""

    generator_every: int = Field(ge=1)
    """The discriminator learns every step, the generator every n-th."""
    learning_rate: float
    schedule: Literal["constant", "cosine"]
    """Papers and code: constant; cosine: down to 0 at the last step."""
    betas: tuple[float, float]
    batch_size: int
    steps: int
    balance: Literal["sampler", "none"]
    """Sampler: slices called healthy and abnormal equally often."""
    ema_decay: float = Field(ge=0, lt=1)
    """0: off."""
    seed_offset: int = Field(ge=0)
    """Added to `seed`: the same training once more with other random numbers."""

    def learning_rate_at(self, step: int) -> float:
        """Of both optimisers at a step: constant, or a half cosine from `learning_rate` down to 0 at the last step."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def adam(self, network: str) -> dict[str, Any]:
        """Adam's options for the generator or the discriminator."""
        return {"lr": self.learning_rate, "betas": self.betas}


class UnpairedParams(TrainingParams):
    """Of a method that compares slices of either label and asks no classifier."""

    augmentation: list[AnyTransform]
    """Of each image on its own, as for classifiers; []: none."""


@dataclass(frozen=True)
class Batch:
    """One step's slices, on the device."""

    images: Tensor  # (B,1,H,W) in [-1,1]
    logits: Tensor  # (B,) the frozen classifier's on the images
    organ: Tensor  # (B,1,H,W) bool
    uniform: Tensor  # (B,) in [0,1), for a method that chooses something at random for each image
    healthy: Tensor | None = None  # (B,1,H,W) for each image a healthy slice of about its height, where asked for
    features: Tensor | None = None  # (B,F) the classifier's penultimate features of the images, where asked for
    step: int = 0  # of the training, counted from 0


@dataclass(frozen=True)
class TrainingSlices:
    """The training split with its image-level labels and organ masks; no lesion mask comes here."""

    images: Tensor  # (N,H,W) float16 in [-1,1], on the runtime's device
    organ: Tensor  # (N,H,W) uint8, on the runtime's device
    labels: Tensor  # (N,) bool, on the CPU: labelled abnormal
    heights: Tensor  # (N,) in [0,1], on the CPU: position among the scan's slices
    classifier: nn.Module  # frozen
    runtime: Runtime

    @classmethod
    def from_store(cls, store: SliceStore, classifier: nn.Module, runtime: Runtime) -> TrainingSlices:
        rows = store.rows("train")
        index = store.index.iloc[rows]
        images, organ = (torch.as_tensor(array[rows], device=runtime.device) for array in (store.images, store.organ))
        labels, heights = index["label"].to_numpy() == 1, index["relative_height"].to_numpy("float32")
        return cls(images, organ, torch.as_tensor(labels), torch.as_tensor(heights), classifier, runtime)

    @functools.cached_property
    def logits(self) -> Tensor:
        """The classifier's logits (N,) on the device; computed once."""
        return predict_logits(self.classifier, self.images, self.runtime).to(self.runtime.device)

    @functools.cached_property
    def decisions(self) -> Tensor:
        """What the classifier calls abnormal, (N,) bool on the CPU."""
        return (self.logits >= 0).cpu()

    @functools.cached_property
    def features(self) -> Tensor:
        """The classifier's penultimate features (N,F) on the device; computed once, where a method asks for them."""
        return predict_features(self.classifier, self.images, self.runtime).to(self.runtime.device)

    def batch(self, rows: Tensor, generator: Generator, partners: Tensor | None = None,
              with_features: bool = False) -> Batch:
        """The slices at rows (B,), each with the healthy slice at partners (B,) where given."""
        rows = rows.to(self.runtime.device)
        uniform = torch.rand(len(rows), generator=generator).to(self.runtime.device)
        return Batch(
            self._images(rows), self.logits[rows], self.organ[rows].unsqueeze(1) > 0, uniform,
            None if partners is None else self._images(partners.to(self.runtime.device)),
            self.features[rows] if with_features else None)

    def _images(self, rows: Tensor) -> Tensor:
        images = self.images[rows].float().unsqueeze(1)  # (B,H,W) -> (B,1,H,W)
        return images.contiguous(memory_format=self.runtime.memory_format)


def draw(params: TrainingParams, data: TrainingSlices, generator: Generator) -> Batch:
    """A random batch as `balance` says; what is drawn hangs on the generator alone."""
    return data.batch(draw_batch(data.decisions, params.batch_size, params.balance, generator), generator)


def draw_unpaired(params: UnpairedParams, data: TrainingSlices, generator: Generator) -> Batch:
    """As many slices labelled abnormal (`images`) as healthy (`healthy`), in no relation to each other, augmented.

    Logits and organ are those of the slices before augmentation.
    """
    abnormal, healthy = data.labels.nonzero().squeeze(1), (~data.labels).nonzero().squeeze(1)
    if not (len(abnormal) and len(healthy)):
        raise ValueError(f"slices of both labels are needed in the training split, found {len(abnormal)} abnormal "
                         f"and {len(healthy)} healthy ones: add scans")
    rows, partners = (of_label[torch.randint(len(of_label), (params.batch_size,), generator=generator)]
                      for of_label in (abnormal, healthy))
    batch = data.batch(rows, generator, partners)
    return replace(batch, images=augment(batch.images, params.augmentation, generator),
                   healthy=augment(batch.healthy, params.augmentation, generator))


def draw_pairs(data: TrainingSlices, batch_size: int, height_bins: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rows (B,) of slices labelled abnormal, and for each the row of a random healthy one of the same height bin.

    A bin is floor(height_bins * relative height) (COIN-Aligned, section 3.6). Where no healthy slice has an abnormal
    one's bin, the nearest bins that have any stand in.
    """
    abnormal, healthy = data.labels.nonzero().squeeze(1), (~data.labels).nonzero().squeeze(1)
    if not (len(abnormal) and len(healthy)):
        raise ValueError(f"pairing needs slices of both labels in the training split, found {len(abnormal)} abnormal "
                         f"and {len(healthy)} healthy ones: add scans, or set `data: all`")
    rows = abnormal[torch.randint(len(abnormal), (batch_size,), generator=generator)]  # (B,)
    bins = (data.heights * height_bins).floor()
    distance = (bins[rows][:, None] - bins[healthy]).abs()  # (B,number of healthy slices)
    nearest = distance == distance.amin(dim=1, keepdim=True)
    chosen = torch.multinomial(nearest.float(), 1, generator=generator).squeeze(1)
    return rows, healthy[chosen]

"""What a generator learns from: the training split on the device, and the batch of a step."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Generator, Tensor

from flipside.classifiers.networks.backbones import Classifier, predict_features, predict_logits
from flipside.core import ranks
from flipside.core.runtime import Runtime, draw_rows
from flipside.core.store import SliceStore, as_channels


@dataclass(frozen=True)
class Batch:
    """One step's slices, on the device."""

    images: Tensor  # (B,C,H,W) in [-1,1]
    logits: Tensor  # (B,) of the frozen classifier
    organ: Tensor  # (B,1,H,W) bool
    uniform: Tensor  # (B,) in [0,1), for a random choice per image
    step: int = 0  # of the training, counted from 0

    ROWS_ALONG: ClassVar[dict[str, int]] = {}  # the dimension of B where it isn't the first, by the tensor's name

    def share(self) -> Self:
        """This rank's share of a batch that all ranks drew alike."""
        shares: dict[str, Any] = {name: ranks.share(value, self.ROWS_ALONG.get(name, 0))
                                  for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **shares)


@dataclass(frozen=True)
class TrainingSlices:
    """The training split with its image-level labels and organ masks; lesion masks are not part of it."""

    images: Tensor  # (N,H,W) or (N,C,H,W) float16 in [-1,1], on the runtime's device
    organ: Tensor  # (N,H,W) uint8, on the runtime's device
    labels: Tensor  # (N,) bool, on the CPU: labelled abnormal
    heights: Tensor  # (N,) in [0,1], on the CPU: position among the scan's slices
    classifier: Classifier  # frozen
    runtime: Runtime

    @classmethod
    def from_store(cls, store: SliceStore, classifier: Classifier, runtime: Runtime) -> TrainingSlices:
        """The slices of the store's split `train`."""
        rows = store.rows("train")
        index = store.index.iloc[rows]
        images, organ = (torch.as_tensor(array[rows], device=runtime.device) for array in (store.images, store.organ))
        labels, heights = index["label"].to_numpy() == 1, index["relative_height"].to_numpy("float32")
        return cls(images, organ, torch.as_tensor(labels), torch.as_tensor(heights), classifier, runtime)

    @functools.cached_property
    def logits(self) -> Tensor:
        """The classifier's logits (N,) on the device; computed once."""
        return ranks.from_writer(predict_logits(self.classifier, self.images, self.runtime).to(self.runtime.device))

    @functools.cached_property
    def decisions(self) -> Tensor:
        """What the classifier calls abnormal, (N,) bool on the CPU."""
        return (self.logits >= 0).cpu()

    @functools.cached_property
    def features(self) -> Tensor:
        """The classifier's penultimate features (N,F) on the device; computed once."""
        return ranks.from_writer(predict_features(self.classifier, self.images, self.runtime).to(self.runtime.device))

    def batch(self, rows: Tensor, generator: Generator) -> Batch:
        """The slices at rows (B,)."""
        uniform = torch.rand(len(rows), generator=generator).to(self.runtime.device)
        rows = rows.to(self.runtime.device)
        return Batch(self.images_at(rows), self.logits[rows], self.organ[rows].unsqueeze(1) > 0, uniform)

    def images_at(self, rows: Tensor) -> Tensor:
        """Images (B,C,H,W) float32 at rows (B,), on the device."""
        images = as_channels(self.images[rows.to(self.runtime.device)].float())  # (B,C,H,W)
        return images.contiguous(memory_format=self.runtime.memory_format)


def draw_batch(data: TrainingSlices, batch_size: int, balance: Literal["sampler", "none"],
               generator: Generator) -> Batch:
    """A random batch. sampler: slices that the classifier calls healthy and abnormal equally often; none: any slice."""
    return data.batch(draw_rows(data.decisions, batch_size, balance, generator), generator)


def draw_by_label(data: TrainingSlices, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rows (B,) of slices labelled abnormal and rows (B,) of healthy ones, drawn independently.

    Raises ValueError, with counts, where the training split lacks one of the labels.
    """
    abnormal, healthy = rows_by_label(data, "add scans")
    first, second = (rows[torch.randint(len(rows), (batch_size,), generator=generator)] for rows in (abnormal, healthy))
    return first, second


def draw_pairs(data: TrainingSlices, batch_size: int, height_bins: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rows (B,) of slices labelled abnormal, and for each the row of a random healthy one of the same height bin.

    A bin is floor(height_bins * relative height) (COIN-Aligned, section 3.6). Where no healthy slice is in an abnormal
    one's bin, the nearest bins that have any are used. Raises ValueError as `draw_by_label`.
    """
    abnormal, healthy = rows_by_label(data, "add scans, or set `data: all`")
    rows = abnormal[torch.randint(len(abnormal), (batch_size,), generator=generator)]  # (B,)
    bins = (data.heights * height_bins).floor()
    distance = (bins[rows][:, None] - bins[healthy]).abs()  # (B,number of healthy slices)
    nearest = distance == distance.amin(dim=1, keepdim=True)
    chosen = torch.multinomial(nearest.float(), 1, generator=generator).squeeze(1)
    return rows, healthy[chosen]


def rows_by_label(data: TrainingSlices, remedy: str) -> tuple[Tensor, Tensor]:
    """Rows of the slices labelled abnormal and of the healthy ones; ValueError, with counts, where one has none."""
    abnormal, healthy = data.labels.nonzero().squeeze(1), (~data.labels).nonzero().squeeze(1)
    if not (len(abnormal) and len(healthy)):
        raise ValueError(f"slices of both labels are needed in the training split, found {len(abnormal)} abnormal "
                         f"and {len(healthy)} healthy ones: {remedy}")
    return abnormal, healthy

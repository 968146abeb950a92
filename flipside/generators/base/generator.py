"""The contract of a file in flipside/generators/: one class that says what is trained and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import Classifier
from flipside.core.checkpoint import Scratch
from flipside.core.params import Params
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.state import Trained

Fuse = Literal["tanh", "clamp", "none"]  # how an image x and a perturbation G become one image


class GeneratorParams(Params):
    """What every block of section `generators` has."""

    batch_size: PositiveInt
    """Slices in a training step."""
    seed_offset: int = Field(ge=0)
    """Added to `seed`: repeats the training with other random numbers."""


P = TypeVar("P", bound=GeneratorParams)


class TrainedGenerator(ABC, Generic[P]):
    """A generator with its parameters and its training.

    `flipside/generators/<name>.py` defines one concrete subclass, and `generators.<name>` in params.yaml is its
    `Params`. `network` is what is saved.
    """

    Params: type[P]
    network: nn.Module

    def __init__(self, params: P, classifier: Classifier, lesion_fraction: float):
        """`classifier` is frozen; `lesion_fraction` is about the share of an image that a lesion covers, which the
        weights of some losses are stated for. A subclass draws its untrained networks here, from torch's global random
        numbers."""
        self.params, self.classifier, self.lesion_fraction = params, classifier, lesion_fraction

    @staticmethod
    @abstractmethod
    def architecture_of(params: P, classifier: Classifier) -> dict[str, Any]:
        """The arguments of `build`, as `model.json` keeps them."""

    @staticmethod
    @abstractmethod
    def build(architecture: dict[str, Any]) -> nn.Module:
        """The untrained network of an architecture."""

    @abstractmethod
    def train(self, data: TrainingSlices, seed: int, scratch: Scratch) -> Trained:
        """Train the network on the training split.

        What is seen at a step depends on seed and step alone; a killed training continues from `scratch`. Raises
        FloatingPointError, naming loss and step, for a loss that is NaN or infinite.
        """

    def details(self) -> dict[str, str]:
        """What `model.json` records beside architecture, parameters, seed and data."""
        return {}


def fused(total: Tensor, fuse: Fuse) -> Tensor:
    """A sum x + G (or G alone) brought into [-1,1]."""
    return clamped(total) if fuse == "clamp" else torch.tanh(total)


def filled(images: Tensor, mask: Tensor, content: Tensor) -> Tensor:
    """x + M (C - x): images and content (B,C,H,W), mask (B,1,H,W) in [0,1]."""
    return images + mask * (content - images)


def clamped(total: Tensor) -> Tensor:
    """Clamped to [-1,1], with the gradient passed straight through: without one a pixel that left the range would never
    come back."""
    return total + (total.clamp(-1, 1) - total).detach()

"""Adversarial training: seeded batches, alternating steps, EMA, resumable state. No generator's own losses."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import abstractmethod
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from flipside.core import ranks
from flipside.core.checkpoint import Scratch
from flipside.core.runtime import generator_for
from flipside.generators.base.data import Batch, TrainingSlices
from flipside.generators.base.generator import GeneratorParams, TrainedGenerator
from flipside.generators.base.state import Part, Trained, TrainingState, update


class AdversarialParams(GeneratorParams):
    """What adversarial training needs; a subclass says which schedules there are."""

    generator_every: int = Field(ge=1)
    """The discriminator learns at every step, the generator at every n-th."""
    learning_rate: float
    """Adam's learning rate, of generator and discriminator."""
    schedule: str
    betas: tuple[float, float]
    """Adam's decay rates of the two moments."""
    steps: int
    """Training steps."""
    balance: Literal["sampler", "none"]
    """sampler: slices that the classifier calls healthy and abnormal equally often. none: every slice equally often."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the exponential moving average of the generator's weights, which is what is saved; 0: no average."""

    def learning_rate_at(self, step: int) -> float:
        """Of both optimisers at a step: constant, or a half cosine from `learning_rate` down to 0 at the last step."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def adam(self, network: str) -> dict[str, Any]:
        """Adam's options for `network`: generator or discriminator."""
        return {"lr": self.learning_rate, "betas": self.betas}


class TrainingParams(AdversarialParams):
    """Adversarial training with the two schedules that most generators have."""

    schedule: Literal["constant", "cosine"]
    """Of the learning rate. constant: as papers and codes have it. cosine: down to 0 at the last step."""


P = TypeVar("P", bound=AdversarialParams)
B = TypeVar("B", bound=Batch)


class AdversarialGenerator(TrainedGenerator[P], Generic[P, B]):
    """A generator that is trained against a discriminator: `B` is what it sees at a step."""

    discriminator: nn.Module

    @abstractmethod
    def draw(self, data: TrainingSlices, generator: Generator) -> B:
        """What a step sees, on all ranks together; it depends on the generator of random numbers alone."""

    @abstractmethod
    def generate(self, batch: B) -> Tensor:
        """What the network makes of a batch, for both losses."""

    @abstractmethod
    def discriminator_loss(self, batch: B, made: Tensor) -> Tensor | None:
        """The discriminator's loss on a batch and what was made of it; None where a step doesn't train it."""

    @abstractmethod
    def generator_losses(self, batch: B, made: Tensor) -> dict[str, Tensor]:
        """The network's weighted loss terms by name; their sum is minimised."""

    def train(self, data: TrainingSlices, seed: int, scratch: Scratch) -> Trained:
        """Alternate the discriminator's and the network's steps; gives the network, or its average with `ema_decay`."""
        params, runtime = self.params, data.runtime
        network, discriminator = runtime.place(self.network).train(), runtime.place(self.discriminator).train()
        for module in (network, discriminator):
            ranks.over_whole_batches(module)
        average = copy.deepcopy(network).requires_grad_(False) if params.ema_decay else None
        optimizers = {
            name: torch.optim.Adam(module.parameters(), **params.adam(name), fused=True)
            for name, module in (("generator", network), ("discriminator", discriminator))
        }
        parts: dict[str, Part] = {
            "generator": network, "discriminator": discriminator, **({"average": average} if average else {}),
            **{f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}}
        state = TrainingState(scratch, params.steps)
        state.restore(**parts)

        losses: dict[str, Tensor] = {}
        for step in range(state.step, params.steps):
            batch = dataclasses.replace(self.draw(data, generator_for(seed, step)), step=step).share()
            for name, optimizer in optimizers.items():
                share = params.learning_rate_at(step) / params.learning_rate
                optimizer.param_groups[0]["lr"] = params.adam(name)["lr"] * share
            updates_generator = step % params.generator_every == params.generator_every - 1

            with torch.set_grad_enabled(updates_generator), runtime.autocast():
                # The network's batch-norm statistics follow every step, its weights don't.
                made = self.generate(batch)
            discriminator.requires_grad_(True)
            with runtime.autocast():
                loss = self.discriminator_loss(batch, made.float())
            if loss is not None:
                update(optimizers["discriminator"], loss)
                losses["discriminator"] = loss.detach()

            if updates_generator:
                discriminator.requires_grad_(False)
                with runtime.autocast():
                    terms = self.generator_losses(batch, made.float())
                update(optimizers["generator"], *terms.values())
                losses |= {name: term.detach() for name, term in terms.items()}
                if average is not None:
                    move_average(average, network, params.ema_decay)

            state.record(losses, **parts)
        return state.finish(network if average is None else average)


@torch.no_grad()
def move_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module; buffers (batch-norm statistics) are copied."""
    for mean, parameter in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)
    for kept, buffer in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(buffer)

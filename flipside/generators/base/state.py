"""How far a training is, whatever is trained: learning curves, checks, and the state that a killed one resumes from."""

from __future__ import annotations

import functools
import operator
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flipside.core import ranks
from flipside.core.checkpoint import Scratch, check_finite
from flipside.core.progress import Ticker

SAVE_EVERY_SECONDS = 60.0
RECORD_EVERY = 25  # steps between rows of the learning curves

Part = nn.Module | torch.optim.Optimizer


class Trained(NamedTuple):
    """What a training gives."""

    network: nn.Module  # frozen, in eval mode
    history: list[dict[str, float]]  # learning curves: the step and each loss
    seconds: float


class TrainingState:
    """A training of `total` steps: at its start, or where an unfinished run with the same parameters was saved."""

    def __init__(self, scratch: Scratch, total: int):
        self.scratch, self.total, self.resumed = scratch, total, scratch.load()
        saved = self.resumed or {"step": 0, "history": [], "seconds": 0.0}
        self.step: int = saved["step"]  # steps done
        self.history: list[dict[str, float]] = saved["history"]
        self.seconds_before: float = saved["seconds"]
        self.ticker = Ticker(f"train {scratch.folder.name}", max(total, 1), self.step)
        self.started = self.last_saved = time.monotonic()
        self.unchecked: list[tuple[int, dict[str, Tensor]]] = []

    @property
    def seconds(self) -> float:
        """Spent on the steps done; those that a killed run did after its last save don't count."""
        return self.seconds_before + time.monotonic() - self.started

    def restore(self, **parts: Part) -> None:
        """Load into modules and optimizers what an unfinished run saved under their names, if there is one."""
        if self.resumed:
            for name, part in parts.items():
                part.load_state_dict(self.resumed[name])

    def record(self, losses: Mapping[str, Tensor], **parts: Part) -> None:
        """Count a step with its losses; at intervals add a row to the learning curves and save the parts by name.

        Raises FloatingPointError, naming loss and step, for a loss that is NaN or infinite.
        """
        self.step += 1
        self.unchecked.append((self.step, {name: loss.detach() for name, loss in losses.items()}))
        if self.step % RECORD_EVERY and self.step != self.total:
            return
        self.unchecked = means_over_ranks(self.unchecked)
        for step, terms in self.unchecked:  # not at every step, which would wait for the GPU
            check_finite(terms, step, self.scratch)
        values = {name: float(value) for name, value in self.unchecked[-1][1].items()}
        self.unchecked.clear()
        self.history.append({"step": self.step, **values})
        self.ticker.tick(self.step, **values)
        if time.monotonic() - self.last_saved > SAVE_EVERY_SECONDS:
            self.scratch.save({name: part.state_dict() for name, part in parts.items()}
                              | {"step": self.step, "history": self.history, "seconds": self.seconds})
            self.last_saved = time.monotonic()

    def finish(self, network: nn.Module) -> Trained:
        """The trained network, frozen and in eval mode, with its learning curves and seconds."""
        return Trained(network.eval().requires_grad_(False), self.history, self.seconds)


def means_over_ranks(steps: list[tuple[int, dict[str, Tensor]]]) -> list[tuple[int, dict[str, Tensor]]]:
    """The losses of the whole batches, where several ranks computed them on their shares, in one message."""
    if ranks.count() == 1:
        return steps
    means = iter(ranks.mean(torch.stack([loss.float() for _, terms in steps for loss in terms.values()])))
    return [(step, {name: next(means) for name in terms}) for step, terms in steps]


def update(optimizer: torch.optim.Optimizer, *losses: Tensor) -> None:
    """One step down the gradient of the losses' sum, of several ranks down its mean."""
    optimizer.zero_grad(set_to_none=True)
    functools.reduce(operator.add, losses).backward()
    ranks.average_gradients(optimizer)
    optimizer.step()

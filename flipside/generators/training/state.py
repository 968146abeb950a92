"""The course of a training, whatever is trained: learning curves, checks, the state that a killed one goes on from."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from flipside.core.checkpoint import Scratch, check_finite
from flipside.core.progress import Ticker

SAVE_EVERY_SECONDS = 60.0
RECORD_EVERY = 25  # steps between rows of the learning curves

Part = nn.Module | torch.optim.Optimizer


class Course:
    """Where a training of `total` steps stands: at its start, or where an unfinished run of the same was saved."""

    def __init__(self, scratch: Scratch, total: int):
        self.scratch, self.total, self.state = scratch, total, scratch.load()
        kept = self.state or {"step": 0, "history": [], "seconds": 0.0}
        self.step: int = kept["step"]  # steps done
        self.history: list[dict[str, float]] = kept["history"]
        self.seconds_before: float = kept["seconds"]
        self.ticker = Ticker(f"train {scratch.folder.name}", max(total, 1), self.step)
        self.started = self.saved = time.monotonic()
        self.unchecked: list[tuple[int, dict[str, Tensor]]] = []

    @property
    def seconds(self) -> float:
        """Spent on the steps that count: of a killed training, those up to the state that it went on from."""
        return self.seconds_before + time.monotonic() - self.started

    def restore(self, **parts: Part) -> None:
        """Give modules and optimizers the state that an unfinished run saved under these names, if there is one."""
        if self.state:
            for name, part in parts.items():
                part.load_state_dict(self.state[name])

    def record(self, losses: dict[str, Tensor], **parts: Part) -> None:
        """Count a step with its losses; now and then write a row of the curves, and save the parts by name.

        Raises FloatingPointError, naming loss and step, if a loss has become NaN or infinite.
        """
        self.step += 1
        self.unchecked.append((self.step, {name: loss.detach() for name, loss in losses.items()}))
        if self.step % RECORD_EVERY and self.step != self.total:
            return
        for step, terms in self.unchecked:  # not at every step: a GPU would have to be waited for
            check_finite(terms, step, self.scratch)
        values = {name: float(value) for name, value in self.unchecked[-1][1].items()}
        self.unchecked.clear()
        self.history.append({"step": self.step, **values})
        self.ticker.tick(self.step, **values)
        if time.monotonic() - self.saved > SAVE_EVERY_SECONDS:
            self.scratch.save({name: part.state_dict() for name, part in parts.items()}
                              | {"step": self.step, "history": self.history, "seconds": self.seconds})
            self.saved = time.monotonic()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()

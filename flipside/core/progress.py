"""Progress with ETA on a terminal; elsewhere (CI logs, files) a line at intervals."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

hidden = False  # bars: set on the processes of a training that leave the talking to another


def progress(items: Iterable[Item], description: str, total: int | None = None, initial: int = 0) -> Iterator[Item]:
    """Iterate with a bar on a terminal; without one, stay silent."""
    return iter(tqdm(items, desc=description, total=total, initial=initial,
                     disable=hidden or not sys.stderr.isatty(), dynamic_ncols=True))


class Ticker:
    """`ticker.tick(step, loss=…)`: a bar with the newest values on a terminal, else one line per `every_seconds`."""

    def __init__(self, description: str, total: int, initial: int = 0, every_seconds: float = 30.0):
        self.description, self.total, self.every_seconds = description, total, every_seconds
        self.started, self.last, self.initial = time.monotonic(), time.monotonic(), initial
        self.bar = tqdm(desc=description, total=total, initial=initial, disable=hidden or not sys.stderr.isatty(),
                        dynamic_ncols=True)

    def tick(self, step: int, **values: float) -> None:
        """Report that `step` steps of `total` are done."""
        self.bar.update(step - self.bar.n)
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        self.bar.set_postfix(shown, refresh=False)
        now = time.monotonic()
        if self.bar.disable and (now - self.last >= self.every_seconds or step == self.total):
            rate = (now - self.started) / max(step - self.initial, 1)
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            print(f"{self.description}  {step}/{self.total}  {rate:.3f} s/step  "
                  f"ETA {rate * (self.total - step):.0f} s  {text}", flush=True)
            self.last = now
        if step == self.total:
            self.bar.close()

"""Work that is done in no time, for tests of how it is shared; the workers of a cluster import it."""

import os
import signal
from pathlib import Path

import numpy as np

DEADLY = 5  # the part at which a worker dies


class Squares:
    """Squares of numbers. `deaths`: how often a process that is at the part DEADLY kills itself."""

    def __init__(self, notes: Path, deaths: int):
        self.notes, self.deaths = notes, deaths
        self.note("opened", os.getpid())

    def note(self, what, value):
        with open(self.notes / what, "a") as file:
            file.write(f"{value}\n")

    def __call__(self, part):
        self.note("begun", part)
        if part == DEADLY and noted(self.notes, "begun").count(str(part)) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        values = np.arange(part, dtype=np.float16) ** 2
        record = {"part": np.int64(part), "text": "\udc80", "no": None}
        return {"squares": values, "all": np.array([values.sum()])}, record


def noted(notes, what):
    return (notes / what).read_text().split()

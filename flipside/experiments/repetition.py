"""Which trainings are repeated: a run's parameters with other seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flipside.report.trainings import Series

AGAIN: dict[Series, tuple[str, ...]] = {"generators": ("generators", "encoders"),
                                        "classifier": ("classifiers", "generators", "encoders")}
KEPT = ("classifiers.judge",)  # it measures, so it stays the same


@dataclass(frozen=True)
class Repetition:
    """All trainings of a series once more, with random numbers of their own."""

    series: Series
    seed: int
    """What is added to each `seed_offset`."""

    @property
    def name(self) -> str:
        return f"{self.series}, seed {self.seed}"

    def values(self, params: dict[str, Any]) -> dict[str, int]:
        """The values of dotted keys that differ from params.yaml."""
        return {f"{section}.{name}.seed_offset": block["seed_offset"] + self.seed
                for section in AGAIN[self.series] for name, block in params[section].items()
                if f"{section}.{name}" not in KEPT}


def repetitions(seeds: int, series: tuple[Series, ...]) -> Iterator[Repetition]:
    """Those that make `seeds` trainings together with the run's own."""
    for one in series:
        yield from (Repetition(one, seed) for seed in range(1, seeds))

"""Square holes, inpainted one at a time in test slices: what the classifier said before and after.

Drawn where the organ is, without the truth; which of them lie on a lesion is found out by the room evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field, PositiveInt

from flipside.core.files import atomic_folder
from flipside.core.params import Params

FOLDER = Path("data/probes")


class ProbeParams(Params):
    """Section `probe`: the check of the inpainter of `impact` (Major et al. 2020, figure 2)."""

    hole_fraction: float = Field(gt=0, lt=1)
    """Side of a hole, of the image's side."""
    stride_fraction: float = Field(gt=0, lt=1)
    """Between neighbouring holes."""
    draws: PositiveInt
    """Random choices of a hole per slice; the paper: 10."""
    covered: float = Field(gt=0, le=1)
    """Share of a lesion that a hole covers to count as "lesion inpainted"."""


@dataclass(frozen=True)
class Probes:
    slices: pd.DataFrame  # slice_id, logit: each test slice as it is
    holes: pd.DataFrame  # slice_id, top, left, side (pixels), logit: the slice with this square inpainted

    @classmethod
    def open(cls) -> Probes:
        tables = {}
        for name in ("slices", "holes"):
            if not (FOLDER / f"{name}.csv").is_file():
                raise FileNotFoundError(f"{FOLDER}/{name}.csv not found: run `dvc repro probe_inpainter`")
            tables[name] = pd.read_csv(FOLDER / f"{name}.csv", dtype={"slice_id": str})
        return cls(**tables)

    def write(self) -> None:
        with atomic_folder(FOLDER) as folder:
            self.slices.to_csv(folder / "slices.csv", index=False, float_format="%.6g")
            self.holes.to_csv(folder / "holes.csv", index=False, float_format="%.6g")

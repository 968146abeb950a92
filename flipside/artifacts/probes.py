"""Square holes, inpainted one at a time in test slices: what the classifier said before and after.

They are placed where the organ is, without the truth; the stage check_inpainter finds out which lie on a lesion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field, PositiveInt

from flipside.core import paths
from flipside.core.files import atomic_folder
from flipside.core.index_tables import read_index
from flipside.core.params import Params


class ProbeParams(Params):
    """Section `probe`: the check of the inpainter of `impact` (Major et al. 2020, figure 2)."""

    hole_fraction: float = Field(gt=0, lt=1)
    """Side of a hole, as a fraction of the image's shorter side."""
    stride_fraction: float = Field(gt=0, lt=1)
    """Distance between neighbouring holes, as a fraction of the image's shorter side."""
    draws: PositiveInt
    """Random choices of a hole per slice; the paper: 10."""
    covered: float = Field(gt=0, le=1)
    """Share of a lesion that a hole has to cover to count as "lesion inpainted"."""


@dataclass(frozen=True)
class Probes:
    """The classifier's answers, as two tables."""

    slices: pd.DataFrame  # slice_id, logit: each test slice as it is
    holes: pd.DataFrame  # slice_id, top, left, side (pixels), logit: the slice with this square inpainted

    @classmethod
    def open(cls) -> Probes:
        """The answers on disk; FileNotFoundError says which stage writes them."""
        tables = {}
        for name in ("slices", "holes"):
            file = Path(paths.PROBES) / f"{name}.csv"
            if not file.is_file():
                raise FileNotFoundError(f"{file} not found: run `dvc repro probe_inpainter`")
            tables[name] = read_index(file)
        return cls(**tables)

    def write(self) -> None:
        """Write both tables, whole or not at all."""
        with atomic_folder(paths.PROBES) as folder:
            self.slices.to_csv(folder / "slices.csv", index=False, float_format="%.6g")
            self.holes.to_csv(folder / "holes.csv", index=False, float_format="%.6g")

"""Which data sets are simulated before any is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flipside.core.params import Params


class SimulatedParams(Params):
    """Section `simulated`: which data sets the first stages make. A list of none is []."""

    scans: Annotated[list[Literal["phantom"]], Field(max_length=1)]
    """Data sets that `simulate_scans` makes: [phantom] or []."""
    effects: Annotated[list[Literal["synthetic_effect"]], Field(max_length=1)]
    """Data sets that `simulate_effects` makes: [synthetic_effect] or []."""

"""Parameters that all methods share."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from flipside.core.params import Params


class ExplainParams(Params):
    """Section `explain`: the slices that every method explains."""

    batch_size: PositiveInt
    """Slices that a method explains at once."""
    splits: list[Literal["train", "val", "test"]]
    """Splits whose slices are explained: thresholds are chosen on val, scores are of test."""


class MethodParams(Params):
    """Section `methods.<name>`: the base of every method's own parameters."""

    needs: str
    """Folder that the method reads: a trained model, inverted slices or found attributes."""

"""A block that fits a folder, and what in it is a guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Proposal:
    """Keys of a block under `datasets` but its root and modality, and why each guessed one is what it is."""

    block: dict[str, Any]
    guesses: dict[str, str] = field(default_factory=dict)  # key -> what speaks for it
    notes: list[str] = field(default_factory=list)  # what else the user should know
    has_split: bool = False

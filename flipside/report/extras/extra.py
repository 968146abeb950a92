"""The form in which the page shows what only some methods write."""

from __future__ import annotations

from dataclasses import dataclass, field

from flipside.report.shown_cases import ShownCase


@dataclass(frozen=True)
class Number:
    """A metric in running text."""

    label: str
    meaning: str
    text: str
    n: int | None


@dataclass(frozen=True)
class Extra:
    """A heading in a method's part of the page, a note, and slices with their pictures."""

    heading: str
    note: str
    cases: list[ShownCase]
    numbers: list[Number] = field(default_factory=list)

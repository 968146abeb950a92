"""What every section of the page has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from flipside.metrics import registry
from flipside.report.inputs import ReportInputs


@dataclass(frozen=True)
class Column:
    """Head of one metric's column."""

    label: str
    meaning: str
    higher: bool  # more is better
    oracle: bool  # an upper bound

    @classmethod
    def of(cls, metric: str) -> Self:
        return cls(registry.label(metric), registry.meaning(metric), registry.higher_is_better(metric),
                   metric.endswith("oracle"))


class Section(ABC):
    """A section of the page: a frozen dataclass with what its template shows.

    The template is flipside/report/page/<id>.html.jinja, which gets the object as `section`.
    """

    id: ClassVar[str]
    """Of the section's HTML element; links go there."""
    link: ClassVar[str]
    """Text of the link to it at the top of the page."""
    heading: ClassVar[str]
    """Its heading."""

    @classmethod
    @abstractmethod
    def build(cls, inputs: ReportInputs) -> Self | None:
        """The section of this run; None where the run has nothing to show in it."""

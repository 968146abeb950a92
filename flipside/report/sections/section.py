"""What every section of the page has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from flipside.report.inputs import ReportInputs


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

"""The same slices for all methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flipside.report.cases import shared_cases, shared_healthy_cases
from flipside.report.inputs import ReportInputs
from flipside.report.pictures import compared_pictures, data_uri
from flipside.report.sections.section import Section
from flipside.report.shown_cases import Panel, describe_score


@dataclass(frozen=True)
class ComparedCase:
    """One slice: the scan, the truth where it is known, and each method's mask or map."""

    kind: str
    place: str
    slice_id: str
    panels: list[Panel]


@dataclass(frozen=True)
class Comparison(Section):
    """Lesion slices from easy to hard, then healthy ones from the least to the most falsely marked."""

    id = "comparison"
    link = "Same cases"
    heading = "The same cases, all methods"

    has_lesion_masks: bool
    policy: str
    rows: list[ComparedCase]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        chosen = [("lesion", *case) for case in shared_cases(inputs)]
        chosen += [("healthy", *case) for case in shared_healthy_cases(inputs)]
        rows = [ComparedCase(kind, place, slice_id, compare_methods(inputs, slice_id))
                for kind, place, slice_id in chosen]
        return cls(inputs.has_lesion_masks, inputs.params.policy, rows)

    @property
    def names(self) -> list[str]:
        """Of the panels, the same in each row."""
        return [panel.name for panel in self.rows[0].panels] if self.rows else []


def compare_methods(inputs: ReportInputs, slice_id: str) -> list[Panel]:
    """A slice's panels, those of methods with their score."""
    return [Panel(name, data_uri(picture),
                  describe_score(inputs, inputs.results[name], slice_id) if name in inputs.results else "")
            for name, picture in compared_pictures(inputs, slice_id).items()]

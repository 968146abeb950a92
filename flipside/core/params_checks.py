"""What must hold between sections of the parameters, each of which is right by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flipside.core import paths


def contradictions(values: dict[str, Any]) -> Iterator[str]:
    """A sentence for each contradiction; `values` are all sections, each of them valid."""
    yield from _dataset(values)
    yield from _supervision(values)
    yield from _upper_bound(values)
    yield from _foreign_maps(values)


def _dataset(values: dict[str, Any]) -> Iterator[str]:
    """The chosen data set must have a block."""
    if values["dataset"] not in values["datasets"]:
        yield (f"`dataset` is {values['dataset']!r}, which has no block under `datasets` in datasets.yaml; there are: "
               f"{', '.join(values['datasets'])}")


def _supervision(values: dict[str, Any]) -> Iterator[str]:
    """Training a classifier with lesion masks must be asked for in two places."""
    shown = [f"classifiers.{role}.pretraining" for role, block in values["classifiers"].items()
             if block["pretraining"] == paths.PATCHES]
    if bool(shown) != bool(values["strong_supervision"]):
        found = f"`{shown[0]}` is {paths.PATCHES}" if shown else (
            f"no `pretraining` of a classifier is {paths.PATCHES}")
        yield (f"`strong_supervision` is {values['strong_supervision']!r}, but {found}: for a classifier that is "
               f"pre-trained with lesion masks set both (strong_supervision: [mass_patches]), else neither ([] and "
               f"{paths.SLICES})")


def _upper_bound(values: dict[str, Any]) -> Iterator[str]:
    """A method that learned from lesion masks must be marked as such, and no other."""
    bound, model = values["evaluate"].get("upper_bound"), paths.segmenter("supervised")
    taught = [name for name, block in values["methods"].items() if block["needs"] == model]
    if taught != [bound] and (taught or bound is not None):
        yield (f"`evaluate.upper_bound` is {bound!r}, but the methods that explain with {model} are {taught}: name "
               "there the one that does, or null where none does")


def _foreign_maps(values: dict[str, Any]) -> Iterator[str]:
    """Maps from files need a name of their own."""
    if taken := [name for name in values["foreign_maps"] if name in values["methods"]]:
        yield f"`foreign_maps.{taken[0]}` has the name of a method under `methods`: give one of them another name"

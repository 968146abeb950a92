"""Section `classifiers` of params.yaml: a classifier is trained here, or the user's own is imported."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, RootModel, Tag

from flipside.classifiers.importing import ForeignParams
from flipside.classifiers.training import ClassifierParams


def _kind(block: Any) -> str:
    """The class of a block, by its `source`; without one it is trained."""
    if isinstance(block, BaseModel):
        return type(block).__name__
    trained = not isinstance(block, dict) or block.get("source", "trained") == "trained"
    return (ClassifierParams if trained else ForeignParams).__name__


Block = Annotated[
    Annotated[ClassifierParams, Tag("ClassifierParams")] | Annotated[ForeignParams, Tag("ForeignParams")],
    Discriminator(_kind),
]


class ClassifierBlock(RootModel[Block]):
    """One of the section `classifiers`."""


class ClassifiersParams(RootModel[dict[Literal["classifier", "judge"], Block]]):
    """Section `classifiers`: `classifier` is the one that is explained; `judge` is trained independently of it, and
    scores its counterfactuals."""

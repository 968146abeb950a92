"""The contract of a method: a file `flipside/methods/<name>.py` that defines one concrete subclass of `Method`.

The file's name is the method's name and that of its block under `methods` in params.yaml; no list names it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from flipside.artifacts.explanations import Extra
from flipside.classifiers.networks.backbones import Classifier
from flipside.core.plugins import find_class
from flipside.core.runtime import Runtime
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.parameters import MethodParams


@dataclass(frozen=True)
class Context:
    """What a method is given besides its own parameters."""

    classifier: Classifier  # (B,C,H,W) in [-1,1] -> logits (B,); frozen, in eval mode, on the runtime's device
    runtime: Runtime
    seed: int


class Method(ABC):
    """Explains images: an attribution map of each, and a counterfactual where the method makes one.

    A subclass names the model of its parameters (`Params`) and the extras that it may give. One with parameters of its
    own also annotates `params` with that model, for the type checker.
    """

    Params: ClassVar[type[MethodParams]]
    extras: ClassVar[tuple[Extra, ...]] = ()
    # Whether it explains any classifier that it is given, without training anything anew. Then its maps can be drawn
    # under shuffled weights and compared (`flipside/methods/base/randomisation.py`).
    explains_any_classifier: ClassVar[bool] = False

    seconds_before: float = 0.0  # spent on each image by an earlier stage, such as its inversion

    def __init__(self, params: MethodParams, context: Context):
        self.params = params
        self.context = context

    @abstractmethod
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Explain images (B,C,H,W) in [-1,1] at the store's positions `rows` (B,), with organ masks (B,H,W) uint8."""


def find_method(name: str) -> type[Method]:
    """The method of `flipside/methods/<name>.py`; PluginError where that file is missing or defines no method."""
    return find_class("flipside.methods", name, Method)  # type: ignore[type-abstract]  # only subclasses are returned

"""The controls of counterfactual metrics: counterfactuals that flip a classifier by destroying the image."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.method import Method
from flipside.methods.base.parameters import MethodParams


class DestructionParams(MethodParams):
    """Parameters of a control that reads nothing but slices."""

    needs: Literal["data/slices"]
    """Folder of the slices."""


class Destruction(Method):
    """Base of these controls: they define `destroy`. Classifiers call what they make healthy, and it explains nothing:
    a metric of counterfactuals that likes them is no metric."""

    Params: ClassVar[type[DestructionParams]] = DestructionParams
    explains_any_classifier = True  # they ask none, which the randomisation check reveals

    @abstractmethod
    def destroy(self, images: Tensor) -> Tensor:
        """What is left of images (B,C,H,W) in [-1,1], of the same shape and range."""

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """The destroyed images as counterfactuals of images (B,C,H,W), the change as the map."""
        return ExplanationBatch.from_counterfactual(images, self.destroy(images))

"""The room's contract: a method is a file `flipside/methods/<name>.py` with `MethodParams` and `Method`.

`Method(params, context)` is called as `method(images, rows, organ)` and answers with an `ExplanationBatch`. A method
that rests on an earlier stage's work on each image names that work's seconds per image as `seconds_before`. One that
explains through a generator which never saw the classifier says so with `TRAINED_WITHOUT_CLASSIFIER = True`: its maps
can then be drawn for any classifier. The name of a method is the name of its file and of its block under `methods` in
params.yaml; there is no other list.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from flipside.core.params import Params, ParamsError
from flipside.core.runtime import Runtime

CLASSIFIER = "models/classifiers/classifier"  # the one frozen classifier that all methods explain
BASELINES = {"mid_grey": 0.0, "air": -1.0}  # what a pixel becomes where a mask takes it away, in the range [-1,1]


class ExplainParams(Params):
    """Section `explain`: what every method is run on."""

    batch_size: PositiveInt
    """Images that a method gets at once."""
    splits: list[Literal["train", "val", "test"]]
    """Val for the thresholds, test for the scores."""


@dataclass(frozen=True)
class Context:
    """What a method is given besides its own parameters."""

    classifier: nn.Module  # (B,1,H,W) in [-1,1] -> logits (B,); frozen, in eval mode, on the runtime's device
    runtime: Runtime
    seed: int


@dataclass(frozen=True)
class ExplanationBatch:
    """One method's answer for B images."""

    attribution: Tensor  # (B,H,W) in [0,1], higher means more to do with the decision "abnormal"
    counterfactual: Tensor | None = None  # (B,1,H,W) in [-1,1], the image that should be called healthy
    steps: Tensor | None = None  # (B,) optimisation steps spent, where the method optimises per image
    abnormal: Tensor | None = None  # (B,1,H,W) in [-1,1], the image that should be called abnormal: an extra of some
    # (B,) mean |x - x_back| on the scale [0,1], where a method has a way back from its counterfactual to the image
    cycle_l1: Tensor | None = None
    roi: Tensor | None = None  # (B,1,H,W) in [0,1], 0 where the method leaves the scan as it is: of some
    blobs: Tensor | None = None  # (B,K,7) outlines of the blobs that it changes, see `Explanations`: of some
    f_reconstruction: Tensor | None = None  # (B,) probability of abnormal of the generator's unchanged image: of some

    @classmethod
    def from_maps(cls, maps: Tensor) -> ExplanationBatch:
        """Attribution maps (B,H,W) of any range, each min-max scaled to [0,1] (as COIN, Shvetsov et al. 2024, does)."""
        return cls(min_max_scale(maps))

    @classmethod
    def from_counterfactual(cls, images: Tensor, counterfactual: Tensor,
                            steps: Tensor | None = None, abnormal: Tensor | None = None,
                            roi: Tensor | None = None, blobs: Tensor | None = None,
                            f_reconstruction: Tensor | None = None) -> ExplanationBatch:
        """Attribution |x - x_cf| / 2, the change with both images mapped to [0,1]; not scaled per image."""
        difference = (images - counterfactual).abs().squeeze(1) / 2  # (B,1,H,W) -> (B,H,W)
        return cls(difference, counterfactual, steps, abnormal, roi=roi, blobs=blobs, f_reconstruction=f_reconstruction)


class AttributionParams(Params):
    """Parameters of a method that reads nothing but the explained classifier."""

    needs: Literal["models/classifiers/classifier"]
    """Folder of the trained model that the method reads."""


class AttributionMethod(ABC):
    """Base of the methods that give a map and no counterfactual: they define `maps`, scaling is done here."""

    def __init__(self, params: AttributionParams, context: Context):
        self.params = params
        self.context = context

    @abstractmethod
    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        """Unscaled maps (B,H,W) of images (B,1,H,W) in [-1,1]; `rows` (B,) are the images' positions in the store."""

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Explain images (B,1,H,W) in [-1,1] at the store's positions `rows` (B,), with organ masks (B,H,W)."""
        return ExplanationBatch.from_maps(self.maps(images, rows))


def load_method(name: str) -> ModuleType:
    """The module of a method, which has `MethodParams` and `Method`; ParamsError for a name without such code."""
    module_name = f"flipside.methods.{name}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ParamsError(f"method {name!r} has no code: flipside/methods/{name}.py not found") from None
    if not (hasattr(module, "MethodParams") and hasattr(module, "Method")):
        raise ParamsError(f"method {name!r}: flipside/methods/{name}.py has no `MethodParams` and `Method`")
    return module


def min_max_scale(maps: Tensor) -> Tensor:
    """Each of the maps (...,H,W) scaled to [0,1]; a constant map says nothing and becomes all zeros."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    # Only an exact zero is replaced, so that NaN stays NaN and is refused when it is written.
    return ((maps - low) / span.masked_fill(span == 0, 1.0)).clamp(0, 1)


def upsample(maps: Tensor, images: Tensor) -> Tensor:
    """Maps (B,h,w) brought bilinearly to the size of images (B,1,H,W): (B,H,W)."""
    size = images.shape[-2:]
    return F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


@torch.no_grad()
def masked_probabilities(context: Context, image: Tensor, masks: Tensor, baseline: float) -> Tensor:
    """Probability of abnormal (M,) of one image (1,H,W) seen through masks (M,H,W) in [0,1], in one forward pass.

    A mask of 1 keeps a pixel, 0 turns it into `baseline`: with baseline 0 the mask multiplies the image.
    """
    masked = (image - baseline) * masks  # (1,H,W) * (M,H,W) -> (M,H,W)
    if baseline:
        masked += baseline
    with context.runtime.autocast():
        logits = context.classifier(masked.unsqueeze(1))  # (M,1,H,W) -> (M,)
    return torch.sigmoid(logits.float())

"""What a method answers for a batch of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from flipside.artifacts.explanations import Extra


@dataclass(frozen=True)
class ExplanationBatch:
    """One method's answer for B images."""

    attribution: Tensor  # (B,H,W) in [0,1], higher means more to do with the decision "abnormal"
    counterfactual: Tensor | None = None  # (B,C,H,W) in [-1,1], the image that should be called healthy
    # What only some methods give: a Number (B,), an Image (B,C,H,W) or (B,1,H,W) in its range, a Table (B,K,M).
    extras: Mapping[Extra, Tensor] = field(default_factory=dict)

    @classmethod
    def from_counterfactual(cls, images: Tensor, counterfactual: Tensor,
                            extras: Mapping[Extra, Tensor] | None = None) -> ExplanationBatch:
        """Attribution |x - x_cf| / 2, the change with both images (B,C,H,W) mapped to [0,1]; not scaled per image."""
        return cls(map_of_change(images - counterfactual), counterfactual, extras or {})


def map_of_change(change: Tensor) -> Tensor:
    """The map (B,H,W) in [0,1] of a change (B,C,H,W) of images in [-1,1]: half its absolute value, of several channels
    the mean. Every method whose map is a change has it from here."""
    return change.abs().mean(dim=1) / 2

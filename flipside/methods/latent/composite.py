"""What a latent method shows of its generator's image: the image itself, or the scan with what has changed in it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.generators.base.generator import clamped

Composite = Literal["residual", "replace", "none"]


def compose(composite: Composite, images: Tensor, made: Tensor, reconstruction: Tensor,
            mask: Tensor | None = None) -> Tensor:
    """The counterfactual (B,C,H,W) in [-1,1] that is searched and scored.

    Of scans `images`, what the generator makes of the changed codes and of the inverted ones (`made` and
    `reconstruction`, (B,C,H,W) each, unbounded), and M (B,1,H,W) in [0,1], where changes are let in; None: everywhere.
    residual: x + M (G(cf) - G(inverted)), in which the inversion's error cancels. replace: (1 - M) x + M G(cf). none:
    G(cf), whatever M is. Where nothing has changed, and where M is 0, the first is the scan bit for bit; the second is
    it where M is 0. Gradients go through the clamping.
    """
    if composite == "none" or composite == "replace" and mask is None:
        return clamped(made)
    if composite == "residual":
        change = made - reconstruction  # 0 leaves every bit, and lets the search's first gradient through
        inside = clamped(images + (change if mask is None else mask * change))
    else:
        assert mask is not None
        inside = clamped((1 - mask) * images + mask * made)
    return inside if mask is None else torch.where(mask == 0, images, inside)

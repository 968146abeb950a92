"""Loss terms of COIN and its relatives, each a small function headed by its equation. Means are over the batch."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialLoss = Literal["bce", "hinge", "mse"]
KullbackLeibler = Literal["logits", "clamped_probability"]


def discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialLoss) -> Tensor:
    """Half the sum over real and fake logits (B,); COIN equation 2 (bce), hinge and least squares as alternatives."""
    if kind == "bce":  # -log sigma(real), -log(1 - sigma(fake))
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())


def generator_loss(fake: Tensor, kind: AdversarialLoss) -> Tensor:
    """The generator's part on fake logits (B,): non-saturating for bce."""
    if kind == "bce":
        return F.softplus(-fake).mean()
    if kind == "hinge":
        return -fake.mean()
    return ((fake - 1) ** 2).mean()


def kl_to_target(logits: Tensor, target: Tensor, kind: KullbackLeibler) -> Tensor:
    """KL(target || sigmoid(logits)) between Bernoulli distributions; both (B,), target in [0,1]. COIN equation 3.

    `logits` has a gradient everywhere. `clamped_probability` clamps both to [1e-5, 1 - 1e-5] as the authors' code
    does, and has none where the classifier is surer than that.
    """
    if kind == "logits":
        entropy = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target))
        return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") - entropy).mean()
    p = target.clamp(1e-5, 1 - 1e-5)
    q = torch.sigmoid(logits).clamp(1e-5, 1 - 1e-5)
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()


def total_variation(difference: Tensor, scale: float) -> Tensor:
    """Mean squared differences of neighbours, each axis with its own mean, of a map (B,1,H,W) times `scale`.

    COIN equation 6, applied to the difference map. With x in [-1,1] the authors' 0..255 scale is `scale` = 127.5.
    """
    scaled = difference * scale
    rows = (scaled[..., 1:, :] - scaled[..., :-1, :]) ** 2
    columns = (scaled[..., :, 1:] - scaled[..., :, :-1]) ** 2
    return rows.mean() + columns.mean()

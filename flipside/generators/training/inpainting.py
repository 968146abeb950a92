"""What COIN and COIN-Aligned have in common: a counterfactual toward healthy only, and the parameters of its losses."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flipside.generators.nn.losses import KullbackLeibler
from flipside.generators.nn.networks import NetworkParams
from flipside.generators.training.adversarial import TrainingParams


class InpaintingParams(NetworkParams, TrainingParams):
    """COIN's losses, which COIN-Aligned builds on."""

    kl: KullbackLeibler
    """How the KL divergence is computed: of logits, or of probabilities clamped to [1e-5, 1 - 1e-5] (COIN's code)."""
    kl_target: Literal["own_if_healthy", "always_healthy"]
    """The classifier's target: 0 if f(x) >= 0.5 else f(x) (own_if_healthy, COIN's code), or always 0 (the paper)."""
    cycle_target: Literal["input", "counterfactual"]
    """What E(E(x)) is pulled to: x (input, paper and code) or E(x) (counterfactual)."""
    lambda_adversarial: float = Field(ge=0)
    """Weight of the adversarial loss; 0 leaves it out."""
    lambda_classifier: float = Field(ge=0)
    """Weight of the classifier's KL divergence from its target; 0 leaves it out."""
    lambda_reconstruction: float = Field(ge=0)
    """Weight of the reconstruction; 0 leaves it out."""
    lambda_total_variation: float = Field(ge=0)
    """Weight of the total variation of the change; 0 leaves it out."""
    total_variation_scale: float
    """The change is multiplied by this before its total variation; 127.5: the 0..255 scale of COIN's code."""


def real_condition(kind: Literal["predicted", "single", "none"], logits: Tensor) -> Tensor:
    """The discriminator's condition (B,) of real images with classifier logits (B,): 1[f(x) >= 0.5] where `kind` is
    predicted, else 0. A generated image's is always 0."""
    if kind == "predicted":
        return (logits >= 0).long()
    return torch.zeros_like(logits, dtype=torch.long)


def healthy_target(params: InpaintingParams, logits: Tensor) -> Tensor:
    """What the classifier should say of the counterfactual, (B,) in [0,1]."""
    own = torch.sigmoid(logits)
    if params.kl_target == "always_healthy":
        return torch.zeros_like(own)
    return torch.where(own >= 0.5, torch.zeros_like(own), own)

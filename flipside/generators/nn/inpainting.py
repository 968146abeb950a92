"""What COIN and COIN-Aligned have in common: a counterfactual toward healthy only, and the parameters of its losses."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flipside.generators.nn.losses import AdversarialLoss, KullbackLeibler
from flipside.generators.nn.networks import NetworkParams
from flipside.generators.training.batches import TrainingParams


class InpaintingParams(NetworkParams, TrainingParams):
    adversarial_loss: AdversarialLoss
    """Paper and code: bce."""
    discriminator_condition: Literal["predicted", "single"]
    """Real label: 1[f(x) >= 0.5] (code) or one class (paper)."""
    kl: KullbackLeibler
    kl_target: Literal["own_if_healthy", "always_healthy"]
    """Code: 0 if f(x) >= 0.5 else f(x); paper: 0."""
    cycle_target: Literal["input", "counterfactual"]
    """E(E(x)) is pulled to x (paper and code) or to E(x)."""
    lambda_adversarial: float = Field(ge=0)
    lambda_classifier: float = Field(ge=0)
    lambda_reconstruction: float = Field(ge=0)
    lambda_total_variation: float = Field(ge=0)
    total_variation_scale: float
    """127.5: differences on the 0..255 scale, as the code."""


def real_condition(params: InpaintingParams, logits: Tensor) -> Tensor:
    """Discriminator's condition (B,) for real images with classifier logits (B,); a fake's is always 0."""
    if params.discriminator_condition == "single":
        return torch.zeros_like(logits, dtype=torch.long)
    return (logits >= 0).long()


def healthy_target(params: InpaintingParams, logits: Tensor) -> Tensor:
    """What the classifier should say of the counterfactual, (B,) in [0,1]."""
    own = torch.sigmoid(logits)
    if params.kl_target == "always_healthy":
        return torch.zeros_like(own)
    return torch.where(own >= 0.5, torch.zeros_like(own), own)

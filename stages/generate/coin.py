"""COIN: counterfactual inpainting GAN (Shvetsov et al. 2024, arXiv:2404.12832).

A generator adds to the image what flips the classifier to "healthy"; the difference is the lesion map. Where paper and
published code differ, a parameter names the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.params import Params
from stages.generate.blocks import Decoder, Encoder, ProjectionDiscriminator
from stages.generate.losses import (
    AdversarialLoss,
    KullbackLeibler,
    discriminator_loss,
    generator_loss,
    kl_to_target,
    total_variation,
)

Fuse = Literal["tanh", "clamp", "none"]


class GeneratorParams(Params):
    channels: list[int]  # of encoder and decoder, one block (factor 2 in size) each
    discriminator_channels: list[int]
    discriminator_last_block: bool  # one more block without pooling (the authors' synthetic configuration)
    skips: int  # encoder maps joined into the decoder, counted up from the bottleneck
    fuse: Fuse  # tanh(x + G) as the code; clamp(x + G) as the paper's sum, exact where G = 0; none: tanh(G)
    upsampling: Literal["nearest", "bilinear"]
    spectral_norm: bool  # on the generator's 1x1 shortcuts
    adversarial_loss: AdversarialLoss  # paper and code: bce
    discriminator_condition: Literal["predicted", "single"]  # real label: 1[f(x) >= 0.5] (code) or one class (paper)
    kl: KullbackLeibler
    kl_target: Literal["own_if_healthy", "always_healthy"]  # code: 0 if f(x) >= 0.5 else f(x); paper: 0
    cycle_target: Literal["input", "counterfactual"]  # E(E(x)) is pulled to x (paper and code) or to E(x)
    lambda_adversarial: float = Field(ge=0)
    lambda_classifier: float = Field(ge=0)
    lambda_reconstruction: float = Field(ge=0)
    lambda_total_variation: float = Field(ge=0)
    total_variation_scale: float  # 127.5: differences on the 0..255 scale, as the code
    generator_every: int = Field(ge=1)  # the discriminator learns every step, the generator every n-th
    learning_rate: float
    schedule: Literal["constant", "cosine"]  # paper and code: constant; cosine: down to 0 at the last step
    betas: tuple[float, float]  # paper (0, 0.9), code (0, 0.999)
    batch_size: int
    steps: int
    balance: Literal["sampler", "none"]
    ema_decay: float = Field(ge=0, lt=1)  # 0: off


class CoinGenerator(nn.Module):
    """E(x) = fuse(x, G(encoder(x), condition 0)); images (B,1,H,W) in [-1,1] in and out."""

    def __init__(self, channels: list[int], skips: int, fuse: Fuse, upsampling: str, spectral_norm: bool):
        super().__init__()
        self.fuse = fuse
        self.encoder = Encoder(channels, spectral_norm)
        self.decoder = Decoder(channels, skips, 2, upsampling, spectral_norm)

    def forward(self, images: Tensor) -> Tensor:
        factor = 2 ** len(self.encoder.blocks)
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(f"images of {tuple(images.shape[2:])} can't be halved {len(self.encoder.blocks)} times: "
                             f"make image_size a multiple of {factor} or shorten `generators.coin.channels`")
        condition = torch.zeros(len(images), dtype=torch.long, device=images.device)
        perturbation = self.decoder(self.encoder(images), condition)  # (B,1,H,W)
        if self.fuse == "tanh":
            return torch.tanh(images + perturbation)
        if self.fuse == "clamp":
            total = images + perturbation
            # Straight-through: a pixel that left the range keeps its gradient, or it could never come back.
            return total + (total.clamp(-1, 1) - total).detach()
        return torch.tanh(perturbation)


def build(architecture: dict[str, Any]) -> CoinGenerator:
    """The generator from what `model.json` keeps as its architecture."""
    return CoinGenerator(**architecture)


def architecture_of(params: GeneratorParams) -> dict[str, Any]:
    return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse, "upsampling": params.upsampling,
            "spectral_norm": params.spectral_norm}


@dataclass
class Networks:
    """What is trained. `classifier` is frozen; gradients pass through it to the counterfactual."""

    generator: nn.Module
    discriminator: nn.Module
    classifier: Callable[[Tensor], Tensor]


def build_networks(params: GeneratorParams, classifier: nn.Module) -> Networks:
    discriminator = ProjectionDiscriminator(params.discriminator_channels, 2, params.discriminator_last_block)
    return Networks(build(architecture_of(params)), discriminator, classifier)


def real_condition(params: GeneratorParams, logits: Tensor) -> Tensor:
    """Discriminator's condition (B,) for real images with classifier logits (B,); a fake's is always 0."""
    if params.discriminator_condition == "single":
        return torch.zeros_like(logits, dtype=torch.long)
    return (logits >= 0).long()


def healthy_target(params: GeneratorParams, logits: Tensor) -> Tensor:
    """What the classifier should say of the counterfactual, (B,) in [0,1]."""
    own = torch.sigmoid(logits)
    if params.kl_target == "always_healthy":
        return torch.zeros_like(own)
    return torch.where(own >= 0.5, torch.zeros_like(own), own)


def discriminator_step(networks: Networks, params: GeneratorParams, images: Tensor, logits: Tensor,
                       counterfactual: Tensor) -> Tensor:
    """Discriminator's loss on real images (B,1,H,W) and detached counterfactuals; COIN equation 2."""
    both = torch.cat([images, counterfactual.detach()])  # (2B,1,H,W): one power iteration of the spectral norm
    conditions = torch.cat([real_condition(params, logits), torch.zeros_like(logits, dtype=torch.long)])
    real, fake = networks.discriminator(both, conditions).chunk(2)
    return discriminator_loss(real, fake, params.adversarial_loss)


def generator_step(networks: Networks, params: GeneratorParams, images: Tensor, logits: Tensor,
                   counterfactual: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms, COIN equation 1, by name; their sum is what is minimised.

    `logits` (B,) are the classifier's on `images`, computed once before training.
    """
    losses = {}
    if params.lambda_adversarial:
        fake = networks.discriminator(counterfactual, torch.zeros_like(logits, dtype=torch.long))
        losses["adversarial"] = params.lambda_adversarial * generator_loss(fake, params.adversarial_loss)
    if params.lambda_classifier:
        counterfactual_logits = networks.classifier(counterfactual).float()
        target = healthy_target(params, logits)
        losses["classifier"] = params.lambda_classifier * kl_to_target(counterfactual_logits, target, params.kl)
    if params.lambda_reconstruction:  # equation 4
        cycled = networks.generator(counterfactual)
        cycle_target = images if params.cycle_target == "input" else counterfactual.detach()
        reconstruction = (images - counterfactual).abs().mean() + (cycle_target - cycled).abs().mean()
        losses["reconstruction"] = params.lambda_reconstruction * reconstruction
    if params.lambda_total_variation:  # equation 6
        variation = total_variation((images - counterfactual).abs(), params.total_variation_scale)
        losses["total_variation"] = params.lambda_total_variation * variation
    return losses

"""VA-GAN (Baumgartner et al. 2018, arXiv:1711.08998): a map M with which an abnormal image passes for healthy.

y = x + M(x); a Wasserstein critic with gradient penalty compares it with healthy images, the mean change is punished.
Labels alone, no classifier. Published with a 3-D network and critic of its own kind; here CX-GAN's U-Net and PatchGAN
(without norm, its patches averaged), of which it is the baseline. The published code takes the penalty's norm along one
axis; here it is that of the image.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from flipside.generators.nn.losses import squared_gradient_norms
from flipside.generators.nn.networks import Networks, fused
from flipside.generators.nn.patch_networks import InstanceUNet, PatchDiscriminator
from flipside.generators.training.batches import Batch, UnpairedParams, draw_unpaired

draw = draw_unpaired  # as many slices of either label


class GeneratorParams(UnpairedParams):
    """Section `generators.va_gan`."""

    channels: list[int] = Field(min_length=1)
    """Of the U-Net's encoder, one block (factor 2 in size) each."""
    discriminator_channels: list[int] = Field(min_length=1)
    fuse: Literal["tanh", "clamp"]
    """How x + M is brought into the range."""
    lambda_map: float = Field(ge=0)
    """Of mean |y - x|."""
    lambda_gradient_penalty: float = Field(ge=0)


class AdditiveGenerator(nn.Module):
    """y = fuse(x + M(x)): images (B,1,H,W) in [-1,1] in and out."""

    def __init__(self, channels: list[int], fuse: Literal["tanh", "clamp"]):
        super().__init__()
        self.fuse, self.network = fuse, InstanceUNet(channels)

    def forward(self, images: Tensor) -> Tensor:
        return fused(images + self.network(images), self.fuse)


class Critic(nn.Module):
    """Images (B,1,H,W) -> scores (B,), higher for healthy."""

    def __init__(self, channels: list[int]):
        super().__init__()
        self.network = PatchDiscriminator(channels, norm=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).mean(dim=(1, 2, 3))


def build(architecture: dict[str, Any]) -> AdditiveGenerator:
    """The generator from what `model.json` keeps as its architecture."""
    return AdditiveGenerator(**architecture)


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    return {"channels": params.channels, "fuse": params.fuse}


def build_networks(params: GeneratorParams, classifier: nn.Module) -> Networks:
    return Networks(build(architecture_of(params, classifier)), Critic(params.discriminator_channels), classifier)


def generate(networks: Networks, params: GeneratorParams, batch: Batch) -> Tensor:
    """y (B,1,H,W) of the abnormal images."""
    return networks.generator(batch.images)


def discriminator_step(networks: Networks, params: GeneratorParams, batch: Batch, made: Tensor) -> Tensor:
    """The critic's loss: mean score of generated less that of healthy images, plus the gradient penalty.

    Penalty: lambda (|gradient| - 1)^2 in a random point between each healthy image and a generated one (Gulrajani et
    al. 2017, equation 3); in full precision, for its second derivatives.
    """
    critic, real, fake = networks.discriminator, batch.healthy, made.detach()
    place = batch.uniform[:, None, None, None]
    between = (place * real + (1 - place) * fake).requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        loss = critic(fake).mean() - critic(real).mean()
        norms = (squared_gradient_norms(critic(between), between) + 1e-12).sqrt()  # (B,); the root of 0 has no slope
        return loss + params.lambda_gradient_penalty * ((norms - 1) ** 2).mean()


def generator_step(networks: Networks, params: GeneratorParams, batch: Batch, made: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms by name: less the critic's score, and the mean change."""
    losses = {"adversarial": -networks.discriminator(made).mean()}
    if params.lambda_map:
        losses["map"] = params.lambda_map * (made - batch.images).abs().mean()
    return losses

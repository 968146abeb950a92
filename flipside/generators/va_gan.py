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
from torch import Generator, Tensor, nn

from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.generator import fused
from flipside.generators.nn.losses import per_lesion, squared_gradient_norms
from flipside.generators.nn.patch_networks import InstanceUNet, PatchDiscriminator
from flipside.generators.training.adversarial import AdversarialGenerator
from flipside.generators.training.unpaired import UnpairedBatch, UnpairedParams, draw_unpaired

# Share of the image that the effect covers in the paper's synthetic data: two boxes of 20 x 20 in 112 x 112 pixels.
PUBLISHED_LESION = 2 * 20**2 / 112**2


class VaGanParams(UnpairedParams):
    """Section `generators.va_gan`."""

    channels: list[int] = Field(min_length=1)
    """Channels of the U-Net's encoder, one block (factor 2 in size) each."""
    discriminator_channels: list[int] = Field(min_length=1)
    """Channels of the critic, one block (factor 2 in size) each."""
    fuse: Literal["tanh", "clamp"]
    """How x + M is brought into the range [-1,1]."""
    lambda_map: float = Field(ge=0)
    """Weight of the mean absolute change |y - x|; 0 leaves it out."""
    lambda_gradient_penalty: float = Field(ge=0)
    """Weight of the critic's gradient penalty."""


class AdditiveNetwork(nn.Module):
    """y = fuse(x + M(x)): images (B,C,H,W) in [-1,1] in and out."""

    def __init__(self, channels: list[int], fuse: Literal["tanh", "clamp"], image_channels: int = 1):
        super().__init__()
        self.fuse: Literal["tanh", "clamp"] = fuse
        self.network = InstanceUNet(channels, image_channels)

    def forward(self, images: Tensor) -> Tensor:
        return fused(images + self.network(images), self.fuse)


class Critic(nn.Module):
    """Images (B,C,H,W) -> scores (B,), higher for healthy."""

    def __init__(self, channels: list[int], image_channels: int):
        super().__init__()
        self.network = PatchDiscriminator(channels, norm=False, image_channels=image_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).mean(dim=(1, 2, 3))


class VaGan(AdversarialGenerator[VaGanParams, UnpairedBatch]):
    """y = x + M(x), trained on image-level labels alone."""

    Params = VaGanParams
    network: AdditiveNetwork

    def __init__(self, params: VaGanParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.network = self.build(self.architecture_of(params, classifier))
        self.discriminator = Critic(params.discriminator_channels, classifier.image_channels)

    @staticmethod
    def architecture_of(params: VaGanParams, classifier: Classifier) -> dict[str, Any]:
        return {"channels": params.channels, "fuse": params.fuse, "image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> AdditiveNetwork:
        return AdditiveNetwork(**architecture)

    def draw(self, data: TrainingSlices, generator: Generator) -> UnpairedBatch:
        return draw_unpaired(self.params, data, generator)

    def generate(self, batch: UnpairedBatch) -> Tensor:
        """y (B,C,H,W) of the abnormal images."""
        return self.network(batch.images)

    def discriminator_loss(self, batch: UnpairedBatch, made: Tensor) -> Tensor:
        """The critic's: mean score of generated less that of healthy images, plus the gradient penalty.

        Penalty: lambda (|gradient| - 1)^2 in a random point between each healthy image and a generated one (Gulrajani
        et al. 2017, equation 3); in full precision, for its second derivatives.
        """
        critic, real, fake = self.discriminator, batch.healthy, made.detach()
        place = batch.uniform[:, None, None, None]
        between = (place * real + (1 - place) * fake).requires_grad_()
        with torch.autocast(real.device.type, enabled=False):
            loss = critic(fake).mean() - critic(real).mean()
            norms = (squared_gradient_norms(critic(between), between) + 1e-12).sqrt()  # (B,); sqrt has no slope at 0
            return loss + self.params.lambda_gradient_penalty * ((norms - 1) ** 2).mean()

    def generator_losses(self, batch: UnpairedBatch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms: less the critic's score, and the mean change."""
        losses = {"adversarial": -self.discriminator(made).mean()}
        if self.params.lambda_map:
            change = (made - batch.images).abs().mean()
            losses["map"] = self.params.lambda_map * per_lesion(change, self.lesion_fraction, PUBLISHED_LESION)
        return losses

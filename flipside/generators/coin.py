"""COIN: counterfactual inpainting GAN (Shvetsov et al. 2024, arXiv:2404.12832).

A generator adds to the image what flips the classifier to "healthy"; the difference is the lesion map. Where paper and
published code differ, a parameter names the choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.base.data import Batch, TrainingSlices, draw_batch
from flipside.generators.nn.blocks import ConditionalBatchNorm, ProjectionDiscriminator
from flipside.generators.nn.losses import (
    AdversarialLoss,
    discriminator_loss,
    generator_loss,
    kl_to_target,
    per_lesion,
    total_variation,
)
from flipside.generators.nn.networks import PerturbationNetwork
from flipside.generators.training.adversarial import AdversarialGenerator
from flipside.generators.training.inpainting import InpaintingParams, healthy_target, real_condition


class CoinParams(InpaintingParams):
    """Section `generators.coin`."""

    adversarial_loss: AdversarialLoss
    """Loss of discriminator and generator against each other; paper and code: bce."""
    discriminator_condition: Literal["predicted", "single"]
    """Label of real images: 1[f(x) >= 0.5] (predicted, COIN's code), or one class for all (single, the paper)."""


class Coin(AdversarialGenerator[CoinParams, Batch]):
    """E(x) = fuse(x, G(x)): the counterfactual toward healthy."""

    Params = CoinParams
    network: PerturbationNetwork

    def __init__(self, params: CoinParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.discriminator = ProjectionDiscriminator(params.discriminator_channels, 2, params.discriminator_last_block,
                                                     params.spectral_sigma, image_channels=classifier.image_channels)
        self.network = self.build(self.architecture_of(params, classifier))

    @staticmethod
    def architecture_of(params: CoinParams, classifier: Classifier) -> dict[str, Any]:
        return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse,
                "upsampling": params.upsampling, "spectral_norm": params.spectral_norm,
                "spectral_sigma": params.spectral_sigma, "image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> PerturbationNetwork:
        return PerturbationNetwork(**architecture, norm=partial(ConditionalBatchNorm, conditions=2))

    def draw(self, data: TrainingSlices, generator: Generator) -> Batch:
        return draw_batch(data, self.params.batch_size, self.params.balance, generator)

    def generate(self, batch: Batch) -> Tensor:
        """E(x) (B,C,H,W)."""
        return self.network(batch.images)

    def discriminator_loss(self, batch: Batch, made: Tensor) -> Tensor:
        """On the batch and its counterfactuals (B,C,H,W), which are detached; COIN equation 2."""
        both = torch.cat([batch.images, made.detach()])  # (2B,C,H,W): one power iteration of the spectral norm
        conditions = torch.cat([real_condition(self.params.discriminator_condition, batch.logits),
                                torch.zeros_like(batch.logits, dtype=torch.long)])
        real, fake = self.discriminator(both, conditions).chunk(2)
        return discriminator_loss(real, fake, self.params.adversarial_loss)

    def generator_losses(self, batch: Batch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms of COIN equation 1."""
        params, images = self.params, batch.images
        losses: dict[str, Tensor] = {}
        if params.lambda_adversarial:
            fake = self.discriminator(made, torch.zeros_like(batch.logits, dtype=torch.long))
            losses["adversarial"] = params.lambda_adversarial * generator_loss(fake, params.adversarial_loss)
        if params.lambda_classifier:
            target = healthy_target(params, batch.logits)
            divergence = kl_to_target(self.classifier(made).float(), target, params.kl)
            losses["classifier"] = params.lambda_classifier * divergence
        if params.lambda_reconstruction:  # equation 4
            cycled = self.network(made)
            cycle_target = images if params.cycle_target == "input" else made.detach()
            reconstruction = (images - made).abs().mean() + (cycle_target - cycled).abs().mean()
            losses["reconstruction"] = params.lambda_reconstruction * per_lesion(reconstruction, self.lesion_fraction)
        if params.lambda_total_variation:  # equation 6
            variation = total_variation((images - made).abs(), params.total_variation_scale)
            losses["total_variation"] = params.lambda_total_variation * variation
        return losses

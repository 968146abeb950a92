"""Singla*: a conditional GAN that carries an image to either side of the decision, as COIN's authors rebuilt it.

Singla et al. 2021 (arXiv:2101.04230) in the form of Shvetsov et al. 2024 (COIN), section 4.4 and appendix A. The
classifier's probability is cut into equal bins, the bin is the condition; bin 0 is healthy, the last one abnormal. What
Singla et al. themselves do and COIN's authors don't is the other value of a switch; their loss between the two encoder
outputs (L2 of the latents) is left out.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.base.data import Batch, TrainingSlices, draw_batch
from flipside.generators.nn.blocks import ConditionalBatchNorm, ProjectionDiscriminator
from flipside.generators.nn.losses import (
    AdversarialLoss,
    KullbackLeibler,
    discriminator_loss,
    generator_loss,
    kl_to_target,
    masked_l1,
    total_variation,
)
from flipside.generators.nn.networks import NetworkParams, PerturbationNetwork
from flipside.generators.training.adversarial import AdversarialGenerator, TrainingParams


class SinglaParams(NetworkParams, TrainingParams):
    """Section `generators.singla`."""

    bins: int = Field(ge=2)
    """Conditions: how many equal parts the probability is cut into (COIN's authors: 2, Singla et al.: 10)."""
    target: Literal["opposite", "random"]
    """Where an image is carried to: the bin of 1 - f(x) (opposite), or a random bin (random, Singla et al.)."""
    projection: Literal["nominal", "ordinal"]
    """The discriminator's embedding of a bin: its own vector, or a sum that grows with the bin (Singla et al.)."""
    adversarial_loss: AdversarialLoss
    """Loss of discriminator and generator against each other; COIN's code: bce, Singla et al.: hinge."""
    kl: KullbackLeibler
    """How the KL divergence is computed: of logits, or of probabilities clamped to [1e-5, 1 - 1e-5] (COIN's code)."""
    reconstruction: Literal["l1", "carl"]
    """Distance of images: mean absolute difference (l1), or its means inside and outside the organ added (carl)."""
    lambda_adversarial: float = Field(ge=0)
    """Weight of the adversarial loss; 0 leaves it out."""
    lambda_classifier: float = Field(ge=0)
    """Weight of the classifier's KL divergence from its target; 0 leaves it out."""
    lambda_reconstruction: float = Field(ge=0)
    """Weight of the distance between an image and the one made of it under its own bin; 0 leaves it out."""
    lambda_cycle: float = Field(ge=0)
    """Weight of the distance between an image and the one carried to the target and back; 0 leaves it out."""
    lambda_total_variation: float = Field(ge=0)
    """Weight of COIN's total variation, for comparisons that differ in the conditions alone; published: 0."""
    total_variation_scale: float
    """The change is multiplied by this before its total variation; 127.5: the 0..255 scale of COIN's code."""


class Singla(AdversarialGenerator[SinglaParams, Batch]):
    """E(x, c): the image as it would be if the classifier's probability lay in bin c."""

    Params = SinglaParams
    network: PerturbationNetwork

    def __init__(self, params: SinglaParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.discriminator = ProjectionDiscriminator(
            params.discriminator_channels, params.bins, params.discriminator_last_block, params.spectral_sigma,
            params.projection == "ordinal", classifier.image_channels)
        self.network = self.build(self.architecture_of(params, classifier))

    @staticmethod
    def architecture_of(params: SinglaParams, classifier: Classifier) -> dict[str, Any]:
        return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse,
                "upsampling": params.upsampling, "spectral_norm": params.spectral_norm,
                "spectral_sigma": params.spectral_sigma, "image_channels": classifier.image_channels,
                "bins": params.bins}

    @staticmethod
    def build(architecture: dict[str, Any]) -> PerturbationNetwork:
        sizes = {name: value for name, value in architecture.items() if name != "bins"}
        return PerturbationNetwork(**sizes, norm=partial(ConditionalBatchNorm, conditions=architecture["bins"]))

    def draw(self, data: TrainingSlices, generator: Generator) -> Batch:
        return draw_batch(data, self.params.batch_size, self.params.balance, generator)

    def target_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Where each image is to go: the condition (B,), and what the classifier should say there (B,) in [0,1].

        For a random bin that is the bin's middle (Singla et al.'s code: its lower edge).
        """
        bins = self.params.bins
        if self.params.target == "random":
            condition = (batch.uniform * bins).long()
            return condition, (condition + 0.5) / bins
        probability = torch.sigmoid(-batch.logits)  # 1 - f(x)
        return bin_of(probability, bins), probability

    def own_bin(self, batch: Batch) -> Tensor:
        """The condition (B,) of the images as they are."""
        return bin_of(torch.sigmoid(batch.logits), self.params.bins)

    def generate(self, batch: Batch) -> Tensor:
        """E(x, target) (B,C,H,W)."""
        return self.network(batch.images, self.target_of(batch)[0])

    def discriminator_loss(self, batch: Batch, made: Tensor) -> Tensor:
        """On images under their own bin and detached counterfactuals (B,C,H,W) under their target's."""
        both = torch.cat([batch.images, made.detach()])  # (2B,C,H,W): one power iteration of the spectral norm
        conditions = torch.cat([self.own_bin(batch), self.target_of(batch)[0]])
        real, fake = self.discriminator(both, conditions).chunk(2)
        return discriminator_loss(real, fake, self.params.adversarial_loss)

    def generator_losses(self, batch: Batch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms of COIN equations 9 and 10."""
        params, images = self.params, batch.images
        losses: dict[str, Tensor] = {}
        own = self.own_bin(batch)
        condition, probability = self.target_of(batch)
        if params.lambda_adversarial:
            fake = self.discriminator(made, condition)
            losses["adversarial"] = params.lambda_adversarial * generator_loss(fake, params.adversarial_loss)
        if params.lambda_classifier:  # equation 9
            divergence = kl_to_target(self.classifier(made).float(), probability, params.kl)
            losses["classifier"] = params.lambda_classifier * divergence
        if params.lambda_reconstruction:  # equation 10, first term
            same = self.distance(batch, self.network(images, own))
            losses["reconstruction"] = params.lambda_reconstruction * same
        if params.lambda_cycle:  # equation 10, second term
            losses["cycle"] = params.lambda_cycle * self.distance(batch, self.network(made, own))
        if params.lambda_total_variation:
            variation = total_variation((images - made).abs(), params.total_variation_scale)
            losses["total_variation"] = params.lambda_total_variation * variation
        return losses

    def distance(self, batch: Batch, others: Tensor) -> Tensor:
        """Between the batch's images and others (B,C,H,W), as `reconstruction` says."""
        if self.params.reconstruction == "carl":
            return masked_l1(batch.images, others, batch.organ)
        return (batch.images - others).abs().mean()


def bin_of(probability: Tensor, bins: int) -> Tensor:
    """Condition (B,) of probabilities (B,): the part of [0,1] that holds it, 1 itself in the last."""
    return (probability * bins).long().clamp(max=bins - 1)

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
from torch import Tensor, nn

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
from flipside.generators.nn.networks import NetworkParams, Networks, PerturbationGenerator
from flipside.generators.training.batches import Batch, TrainingParams
from flipside.generators.training.batches import draw as draw  # every slice, in both directions


class GeneratorParams(NetworkParams, TrainingParams):
    """Section `generators.singla`."""

    bins: int = Field(ge=2)
    """Conditions: equal parts of [0,1] (COIN's authors: 2, Singla et al.: 10)."""
    target: Literal["opposite", "random"]
    """Where to: bin(1 - f(x)), or a random bin (Singla et al.)."""
    projection: Literal["nominal", "ordinal"]
    """The discriminator's embedding of a bin (Singla et al.: ordinal)."""
    adversarial_loss: AdversarialLoss
    """COIN's code: bce; Singla et al.: hinge."""
    kl: KullbackLeibler
    reconstruction: Literal["l1", "carl"]
    """Carl: inside and outside of the organ mask, equally."""
    lambda_adversarial: float = Field(ge=0)
    lambda_classifier: float = Field(ge=0)
    lambda_reconstruction: float = Field(ge=0)
    """Of E(x, f(x)), the image as it is."""
    lambda_cycle: float = Field(ge=0)
    """Of the way there and back."""
    lambda_total_variation: float = Field(ge=0)
    """Published: 0; COIN's term, for a comparison in the conditions alone."""
    total_variation_scale: float


def build(architecture: dict[str, Any]) -> PerturbationGenerator:
    """The generator from what `model.json` keeps as its architecture."""
    sizes = {name: value for name, value in architecture.items() if name != "bins"}
    return PerturbationGenerator(**sizes, norm=partial(ConditionalBatchNorm, conditions=architecture["bins"]))


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse, "upsampling": params.upsampling,
            "spectral_norm": params.spectral_norm, "spectral_sigma": params.spectral_sigma, "bins": params.bins}


def build_networks(params: GeneratorParams, classifier: nn.Module) -> Networks:
    discriminator = ProjectionDiscriminator(params.discriminator_channels, params.bins,
                                            params.discriminator_last_block, params.spectral_sigma,
                                            params.projection == "ordinal")
    return Networks(build(architecture_of(params, classifier)), discriminator, classifier)


def bin_of(probability: Tensor, bins: int) -> Tensor:
    """Condition (B,) of probabilities (B,): the part of [0,1] that holds it, 1 itself in the last."""
    return (probability * bins).long().clamp(max=bins - 1)


def target_of(params: GeneratorParams, batch: Batch) -> tuple[Tensor, Tensor]:
    """Where each image is to go: the condition (B,), and what the classifier should say there (B,) in [0,1].

    For a random bin that is the bin's middle (Singla et al.'s code: its lower edge).
    """
    if params.target == "random":
        condition = (batch.uniform * params.bins).long()
        return condition, (condition + 0.5) / params.bins
    probability = torch.sigmoid(-batch.logits)  # 1 - f(x)
    return bin_of(probability, params.bins), probability


def generate(networks: Networks, params: GeneratorParams, batch: Batch) -> Tensor:
    """E(x, target) (B,1,H,W)."""
    return networks.generator(batch.images, target_of(params, batch)[0])


def discriminator_step(networks: Networks, params: GeneratorParams, batch: Batch, counterfactual: Tensor) -> Tensor:
    """Discriminator's loss: images under their own bin, detached counterfactuals (B,1,H,W) under their target's."""
    both = torch.cat([batch.images, counterfactual.detach()])  # (2B,1,H,W): one power iteration of the spectral norm
    own = bin_of(torch.sigmoid(batch.logits), params.bins)
    real, fake = networks.discriminator(both, torch.cat([own, target_of(params, batch)[0]])).chunk(2)
    return discriminator_loss(real, fake, params.adversarial_loss)


def generator_step(networks: Networks, params: GeneratorParams, batch: Batch,
                   counterfactual: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms by name, COIN equations 9 and 10; their sum is what is minimised."""
    images, losses = batch.images, {}
    own = bin_of(torch.sigmoid(batch.logits), params.bins)
    condition, probability = target_of(params, batch)
    if params.lambda_adversarial:
        fake = networks.discriminator(counterfactual, condition)
        losses["adversarial"] = params.lambda_adversarial * generator_loss(fake, params.adversarial_loss)
    if params.lambda_classifier:  # equation 9
        divergence = kl_to_target(networks.classifier(counterfactual).float(), probability, params.kl)
        losses["classifier"] = params.lambda_classifier * divergence
    if params.lambda_reconstruction:  # equation 10, first term
        same = distance(params, batch, networks.generator(images, own))
        losses["reconstruction"] = params.lambda_reconstruction * same
    if params.lambda_cycle:  # equation 10, second term
        losses["cycle"] = params.lambda_cycle * distance(params, batch, networks.generator(counterfactual, own))
    if params.lambda_total_variation:
        variation = total_variation((images - counterfactual).abs(), params.total_variation_scale)
        losses["total_variation"] = params.lambda_total_variation * variation
    return losses


def distance(params: GeneratorParams, batch: Batch, others: Tensor) -> Tensor:
    """Between the batch's images and others (B,1,H,W), as `reconstruction` says."""
    if params.reconstruction == "carl":
        return masked_l1(batch.images, others, batch.organ)
    return (batch.images - others).abs().mean()

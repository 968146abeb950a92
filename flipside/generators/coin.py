"""COIN: counterfactual inpainting GAN (Shvetsov et al. 2024, arXiv:2404.12832).

A generator adds to the image what flips the classifier to "healthy"; the difference is the lesion map. Where paper and
published code differ, a parameter names the choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flipside.generators.nn.blocks import ConditionalBatchNorm, ProjectionDiscriminator
from flipside.generators.nn.inpainting import InpaintingParams, healthy_target, real_condition
from flipside.generators.nn.losses import discriminator_loss, generator_loss, kl_to_target, total_variation
from flipside.generators.nn.networks import Networks, PerturbationGenerator
from flipside.generators.training.batches import Batch
from flipside.generators.training.batches import draw as draw  # COIN sees every slice


class GeneratorParams(InpaintingParams):
    """Section `generators.coin`."""


def build(architecture: dict[str, Any]) -> PerturbationGenerator:
    """The generator from what `model.json` keeps as its architecture."""
    return PerturbationGenerator(**architecture, norm=partial(ConditionalBatchNorm, conditions=2))


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse, "upsampling": params.upsampling,
            "spectral_norm": params.spectral_norm, "spectral_sigma": params.spectral_sigma}


def build_networks(params: GeneratorParams, classifier: nn.Module) -> Networks:
    discriminator = ProjectionDiscriminator(params.discriminator_channels, 2, params.discriminator_last_block,
                                            params.spectral_sigma)
    return Networks(build(architecture_of(params, classifier)), discriminator, classifier)


def generate(networks: Networks, params: GeneratorParams, batch: Batch) -> Tensor:
    """E(x) (B,1,H,W)."""
    return networks.generator(batch.images)


def discriminator_step(networks: Networks, params: GeneratorParams, batch: Batch, counterfactual: Tensor) -> Tensor:
    """Discriminator's loss on the batch and its counterfactuals (B,1,H,W), which are detached; COIN equation 2."""
    both = torch.cat([batch.images, counterfactual.detach()])  # (2B,1,H,W): one power iteration of the spectral norm
    conditions = torch.cat([real_condition(params, batch.logits), torch.zeros_like(batch.logits, dtype=torch.long)])
    real, fake = networks.discriminator(both, conditions).chunk(2)
    return discriminator_loss(real, fake, params.adversarial_loss)


def generator_step(networks: Networks, params: GeneratorParams, batch: Batch,
                   counterfactual: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms, COIN equation 1, by name; their sum is what is minimised."""
    images, losses = batch.images, {}
    if params.lambda_adversarial:
        fake = networks.discriminator(counterfactual, torch.zeros_like(batch.logits, dtype=torch.long))
        losses["adversarial"] = params.lambda_adversarial * generator_loss(fake, params.adversarial_loss)
    if params.lambda_classifier:
        counterfactual_logits = networks.classifier(counterfactual).float()
        target = healthy_target(params, batch.logits)
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

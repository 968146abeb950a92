"""COIN-Aligned: COIN with its parts pointed at one goal, after the thesis of that name (University of Tartu, 2025).

Each of the thesis' modifications is a switch; with all of them off this is COIN. Its generator adds G to the image and
brings the sum into the range by tanh, which changes every pixel; alignment puts whatever the result is compared with
through tanh too. Two ranges follow, and names say which: `aligned` images and counterfactuals went through tanh,
those `in_input_range` did not, so they look like the scan and suit a classifier that was trained on scans.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from flipside.core.runtime import draw_batch
from flipside.generators.nn.blocks import ConditionalBatchNorm, FeatureBatchNorm, ProjectionDiscriminator
from flipside.generators.nn.inpainting import InpaintingParams, healthy_target, real_condition
from flipside.generators.nn.losses import (
    AdversarialLoss,
    dilated_difference,
    discriminator_loss,
    generator_loss,
    kl_to_target,
    relativistic_loss,
    squared_gradient_norms,
    total_variation,
)
from flipside.generators.nn.networks import Networks, PerturbationGenerator, clamped, fused
from flipside.generators.training.batches import Batch, TrainingSlices, draw_pairs

Alignment = Literal["tanh", "none"]


class GeneratorParams(InpaintingParams):
    """Section `generators.coin_aligned`: COIN's parameters and the thesis' switches. Numbers are its experiments."""

    adversarial_loss: AdversarialLoss | Literal["relativistic"]
    """4: relativistic."""
    discriminator_condition: Literal["predicted", "single", "none"]
    """3: none."""
    reconstruction: Literal["cycle", "dilated"]
    """1: dilated; from 2 on lambda_reconstruction is 0."""
    dilation_px: int = Field(ge=1)
    """Side of the square."""
    alignment: Alignment
    """2: tanh."""
    classifier_sees: Literal["input_range", "aligned"]
    """Of a counterfactual. Code: aligned, though f(x) is of the scan."""
    data: Literal["all", "paired"]
    """3: abnormal slices only, the discriminator's real ones healthy, of the same height."""
    height_bins: int = Field(ge=1)
    gamma: float = Field(ge=0)
    """4: of the penalties R1 and R2."""
    penalty_share: float = Field(gt=0, le=1)
    """Of each batch on which these are taken; as published: 1."""
    classifier_features: bool
    """5: into the decoder's conditional norms."""
    feature_scale: Literal["one", "default"]
    """At which their scale starts. Code: default, about 0."""

    @model_validator(mode="after")
    def _go_together(self) -> GeneratorParams:
        if self.alignment == "tanh" and self.fuse == "clamp":
            raise ValueError("`alignment: tanh` compares with images that went through tanh, `fuse: clamp` has none: "
                             "set fuse to tanh or none, or alignment to none")
        if self.data == "paired" and self.discriminator_condition == "predicted":
            raise ValueError("`data: paired` shows the discriminator other slices than those whose prediction is known:"
                             " set discriminator_condition to none or single")
        return self


class AlignedGenerator(PerturbationGenerator):
    """E(x), in either range. The condition is the classifier's features (B,F), or None where `features` is 0."""

    def __init__(self, alignment: Alignment, features: int, feature_scale: Literal["one", "default"], **sizes: Any):
        norm = partial(ConditionalBatchNorm, conditions=2)
        if features:
            norm = partial(FeatureBatchNorm, features=features, initial_scale=feature_scale)
        super().__init__(**sizes, norm=norm)
        self.alignment, self.features = alignment, features

    def aligned(self, total: Tensor) -> Tensor:
        """The counterfactual of a sum x + G, comparable with `align(images)`."""
        return fused(total, self.fuse)

    def in_input_range(self, total: Tensor) -> Tensor:
        """The counterfactual of a sum x + G, comparable with the images as they are."""
        return clamped(total) if self.alignment == "tanh" else fused(total, self.fuse)

    def align(self, images: Tensor) -> Tensor:
        """Images as a counterfactual's comparison sees them."""
        return torch.tanh(images) if self.alignment == "tanh" else images

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.in_input_range(self.total(images, condition))


def build(architecture: dict[str, Any]) -> AlignedGenerator:
    """The generator from what `model.json` keeps as its architecture."""
    return AlignedGenerator(**architecture)


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse, "upsampling": params.upsampling,
            "spectral_norm": params.spectral_norm, "spectral_sigma": params.spectral_sigma,
            "alignment": params.alignment, "feature_scale": params.feature_scale,
            "features": len(classifier.classifying_weights()) if params.classifier_features else 0}


def build_networks(params: GeneratorParams, classifier: nn.Module) -> Networks:
    discriminator = ProjectionDiscriminator(params.discriminator_channels, 2, params.discriminator_last_block,
                                            params.spectral_sigma)
    return Networks(build(architecture_of(params, classifier)), discriminator, classifier)


def draw(params: GeneratorParams, data: TrainingSlices, generator: Generator) -> Batch:
    """All slices as `balance` says, or pairs of an abnormal and a healthy slice."""
    if params.data == "paired":
        rows, partners = draw_pairs(data, params.batch_size, params.height_bins, generator)
    else:
        rows, partners = draw_batch(data.decisions, params.batch_size, params.balance, generator), None
    return data.batch(rows, generator, partners, params.classifier_features)


def generate(networks: Networks, params: GeneratorParams, batch: Batch) -> Tensor:
    """The sum x + G (B,1,H,W), of which the two steps take the range that they need."""
    return networks.generator.total(batch.images, batch.features)


def conditions(params: GeneratorParams, real: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The discriminator's conditions of real and generated images; both None where it has none."""
    if params.discriminator_condition == "none":
        return None, None
    return real, torch.zeros_like(real)


def discriminator_step(networks: Networks, params: GeneratorParams, batch: Batch, counterfactual: Tensor) -> Tensor:
    """Discriminator's loss on real images and detached counterfactuals, given as their sums (B,1,H,W)."""
    real = networks.generator.align(batch.images if batch.healthy is None else batch.healthy)
    fake = networks.generator.aligned(counterfactual.detach())
    real_label, fake_label = conditions(params, real_condition(params, batch.logits))
    penalised = math.ceil(params.penalty_share * len(real)) if params.gamma else len(real)
    scores, penalty = [], 0.0
    # Second derivatives ask for full precision; both parts of the batch see the same weights.
    with torch.autocast(real.device.type, enabled=params.gamma == 0 and torch.is_autocast_enabled(real.device.type)), \
            parametrize.cached():
        for part in (slice(0, penalised), slice(penalised, len(real))):
            if part.start == len(real):
                break
            both = torch.cat([real[part], fake[part]]).requires_grad_(params.gamma > 0 and part.start == 0)
            labels = None if real_label is None else torch.cat([real_label[part], fake_label[part]])
            scores.append(networks.discriminator(both, labels))
            if both.requires_grad:
                r1, r2 = squared_gradient_norms(scores[0], both).chunk(2)
                penalty = params.gamma / 2 * (r1.mean() + r2.mean())
        real_scores, fake_scores = map(torch.cat, zip(*(part.chunk(2) for part in scores), strict=True))
        if params.adversarial_loss == "relativistic":
            return relativistic_loss(real_scores, fake_scores) + penalty
        return discriminator_loss(real_scores, fake_scores, params.adversarial_loss) + penalty


def generator_step(networks: Networks, params: GeneratorParams, batch: Batch,
                   counterfactual: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms by name (thesis equation 2); their sum is what is minimised."""
    generator, losses = networks.generator, {}
    images, result = generator.align(batch.images), generator.aligned(counterfactual)  # (B,1,H,W) each
    in_input_range = generator.in_input_range(counterfactual) if params.alignment == "tanh" else result
    if params.lambda_adversarial:
        losses["adversarial"] = params.lambda_adversarial * adversarial_term(networks, params, batch, result)
    if params.lambda_classifier:
        seen = result if params.classifier_sees == "aligned" else in_input_range
        target = healthy_target(params, batch.logits)
        divergence = kl_to_target(networks.classifier(seen).float(), target, params.kl)
        losses["classifier"] = params.lambda_classifier * divergence
    if params.lambda_reconstruction:
        if params.reconstruction == "dilated":
            reconstruction = dilated_difference(images, result, params.dilation_px)
        else:  # COIN equation 4
            features = features_of(networks, params, in_input_range)
            cycled = generator.aligned(generator.total(in_input_range, features))
            cycle_target = images if params.cycle_target == "input" else result.detach()
            reconstruction = (images - result).abs().mean() + (cycle_target - cycled).abs().mean()
        losses["reconstruction"] = params.lambda_reconstruction * reconstruction
    if params.lambda_total_variation:
        variation = total_variation((images - result).abs(), params.total_variation_scale)
        losses["total_variation"] = params.lambda_total_variation * variation
    return losses


def adversarial_term(networks: Networks, params: GeneratorParams, batch: Batch, result: Tensor) -> Tensor:
    """The generator's part of the adversarial loss, for counterfactuals (B,1,H,W) as the discriminator sees them."""
    real_label, fake_label = conditions(params, real_condition(params, batch.logits))
    if params.adversarial_loss != "relativistic":
        return generator_loss(networks.discriminator(result, fake_label), params.adversarial_loss)
    with parametrize.cached():  # both under the same weights: a forward moves the spectral norm's estimate
        fake = networks.discriminator(result, fake_label)
        with torch.no_grad():
            real = networks.generator.align(batch.images if batch.healthy is None else batch.healthy)
            real_scores = networks.discriminator(real, real_label)
    return relativistic_loss(fake.float(), real_scores.float())


@torch.no_grad()
def features_of(networks: Networks, params: GeneratorParams, images: Tensor) -> Tensor | None:
    """The classifier's penultimate features (B,F) of images (B,1,H,W), where the generator takes them."""
    if not params.classifier_features:
        return None
    return networks.classifier.pooled(networks.classifier.features(images)).float()

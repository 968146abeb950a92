"""COIN-Aligned: COIN with its parts pointed at one goal, after the thesis of that name (University of Tartu, 2025).

Each of the thesis' modifications is a switch; with all of them off this is COIN. Its generator adds G to the image and
brings the sum into the range by tanh, which changes every pixel; alignment puts whatever the result is compared with
through tanh too. Two ranges follow, and names say which: `aligned` images and counterfactuals went through tanh,
those `in_input_range` did not, so they look like the scan and suit a classifier that was trained on scans.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from flipside.classifiers.networks.backbones import Classifier
from flipside.core import ranks
from flipside.core.runtime import draw_rows
from flipside.generators.base.data import Batch, TrainingSlices, draw_pairs
from flipside.generators.base.generator import clamped, fused
from flipside.generators.nn.blocks import ConditionalBatchNorm, FeatureBatchNorm, ProjectionDiscriminator
from flipside.generators.nn.losses import (
    AdversarialLoss,
    dilated_difference,
    discriminator_loss,
    generator_loss,
    kl_to_target,
    per_lesion,
    relativistic_loss,
    squared_gradient_norms,
    total_variation,
)
from flipside.generators.nn.networks import PerturbationNetwork
from flipside.generators.training.adversarial import AdversarialGenerator
from flipside.generators.training.inpainting import InpaintingParams, healthy_target, real_condition

Alignment = Literal["tanh", "none"]
FeatureScale = Literal["one", "default"]


class CoinAlignedParams(InpaintingParams):
    """Section `generators.coin_aligned`: COIN's parameters and the thesis' switches, numbered as its experiments."""

    adversarial_loss: AdversarialLoss | Literal["relativistic"]
    """Loss of discriminator and generator against each other; in the thesis relativistic from experiment 4 on."""
    discriminator_condition: Literal["predicted", "single", "none"]
    """Label of real images: 1[f(x) >= 0.5], one class for all, or no label at all (experiment 3)."""
    reconstruction: Literal["cycle", "dilated"]
    """COIN's cycle, or the change dilated by a square (experiment 1; from 2 on lambda_reconstruction is 0)."""
    dilation_px: int = Field(ge=1)
    """Side in pixels of the square that dilates the change."""
    alignment: Alignment
    """What the counterfactual is compared with: images put through tanh too (experiment 2), or as they are (none)."""
    classifier_sees: Literal["input_range", "aligned"]
    """Form of a counterfactual that the classifier is asked about. The thesis' code: aligned, though f(x) is of the
    scan as it is."""
    data: Literal["all", "paired"]
    """All slices, or abnormal ones only, while the discriminator's real images are healthy ones of about the same
    height (paired, experiment 3)."""
    height_bins: int = Field(ge=1)
    """Number of bins of the relative height within which slices are paired."""
    gamma: float = Field(ge=0)
    """Weight of the gradient penalties R1 and R2 (experiment 4); 0 leaves them out."""
    penalty_share: float = Field(gt=0, le=1)
    """Share of each batch on which R1 and R2 are taken; published: 1."""
    classifier_features: bool
    """The classifier's features condition the decoder's norms (experiment 5)."""
    feature_scale: FeatureScale
    """Where the scale of these norms starts: at one, or at about 0 as a linear layer has it (default, the code)."""

    @model_validator(mode="after")
    def _go_together(self) -> CoinAlignedParams:
        if self.alignment == "tanh" and self.fuse == "clamp":
            raise ValueError("`alignment: tanh` compares with images that went through tanh, `fuse: clamp` has none: "
                             "set fuse to tanh or none, or alignment to none")
        if self.data == "paired" and self.discriminator_condition == "predicted":
            raise ValueError("`data: paired` shows the discriminator other slices than those whose prediction is known:"
                             " set discriminator_condition to none or single")
        return self


class AlignedNetwork(PerturbationNetwork):
    """E(x), in either range. The condition is the classifier's features (B,F), or None where `features` is 0."""

    def __init__(self, alignment: Alignment, features: int, feature_scale: FeatureScale, **sizes: Any):
        norm: Callable[[int], nn.Module] = partial(ConditionalBatchNorm, conditions=2)
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


@dataclass(frozen=True, kw_only=True)
class AlignedBatch(Batch):
    """Slices with what the switches ask for."""

    healthy: Tensor | None  # (B,C,H,W) for each image a healthy slice of about its height, where data are paired
    features: Tensor | None  # (B,F) the classifier's penultimate features, where they condition the network


class CoinAligned(AdversarialGenerator[CoinAlignedParams, AlignedBatch]):
    """COIN with the thesis' switches. What is made of a batch is the sum x + G, which each loss brings into the range
    that it needs."""

    Params = CoinAlignedParams
    network: AlignedNetwork

    def __init__(self, params: CoinAlignedParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.discriminator = ProjectionDiscriminator(params.discriminator_channels, 2, params.discriminator_last_block,
                                                     params.spectral_sigma, image_channels=classifier.image_channels)
        self.network = self.build(self.architecture_of(params, classifier))

    @staticmethod
    def architecture_of(params: CoinAlignedParams, classifier: Classifier) -> dict[str, Any]:
        return {"channels": params.channels, "skips": params.skips, "fuse": params.fuse,
                "upsampling": params.upsampling, "spectral_norm": params.spectral_norm,
                "spectral_sigma": params.spectral_sigma, "image_channels": classifier.image_channels,
                "alignment": params.alignment,
                "feature_scale": params.feature_scale,
                "features": classifier.feature_count if params.classifier_features else 0}

    @staticmethod
    def build(architecture: dict[str, Any]) -> AlignedNetwork:
        return AlignedNetwork(**architecture)

    def draw(self, data: TrainingSlices, generator: Generator) -> AlignedBatch:
        """All slices as `balance` says, or pairs of an abnormal and a healthy slice."""
        params, healthy = self.params, None
        if params.data == "paired":
            rows, partners = draw_pairs(data, params.batch_size, params.height_bins, generator)
            healthy = data.images_at(partners)
        else:
            rows = draw_rows(data.decisions, params.batch_size, params.balance, generator)
        features = data.features[rows.to(data.features.device)] if params.classifier_features else None
        return AlignedBatch(**vars(data.batch(rows, generator)), healthy=healthy, features=features)

    def generate(self, batch: AlignedBatch) -> Tensor:
        """The sum x + G (B,C,H,W)."""
        return self.network.total(batch.images, batch.features)

    def real_images(self, batch: AlignedBatch) -> Tensor:
        """What the discriminator sees as real, (B,C,H,W): the healthy partners where there are any."""
        return self.network.align(batch.images if batch.healthy is None else batch.healthy)

    def conditions(self, batch: AlignedBatch) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """The discriminator's conditions (B,) of real and generated images; both None where it has none."""
        kind = self.params.discriminator_condition
        if kind == "none":
            return None, None
        real = real_condition(kind, batch.logits)
        return real, torch.zeros_like(real)

    def discriminator_loss(self, batch: AlignedBatch, made: Tensor) -> Tensor:
        """On real images and detached counterfactuals, given as their sums (B,C,H,W)."""
        params, real, fake = self.params, self.real_images(batch), self.network.aligned(made.detach())
        real_labels, fake_labels = self.conditions(batch)
        penalised = len(real)
        if params.gamma:
            whole = math.ceil(params.penalty_share * len(real) * ranks.count())
            ranks.check_shares(whole, ranks.count(), "of a batch whose gradients are penalised", "penalty_share")
            penalised = whole // ranks.count()
        scores: list[Tensor] = []
        penalty: Tensor | float = 0.0
        # Second derivatives need full precision; both parts of the batch see the same weights.
        autocast = params.gamma == 0 and torch.is_autocast_enabled(real.device.type)
        with torch.autocast(real.device.type, enabled=autocast), parametrize.cached():
            for part in (slice(0, penalised), slice(penalised, len(real))):
                if part.start == len(real):
                    break
                both = torch.cat([real[part], fake[part]]).requires_grad_(params.gamma > 0 and part.start == 0)
                labels = None
                if real_labels is not None and fake_labels is not None:
                    labels = torch.cat([real_labels[part], fake_labels[part]])
                scores.append(self.discriminator(both, labels))
                if both.requires_grad:
                    r1, r2 = squared_gradient_norms(scores[0], both).chunk(2)
                    penalty = params.gamma / 2 * (r1.mean() + r2.mean())
            real_scores, fake_scores = map(torch.cat, zip(*(part.chunk(2) for part in scores), strict=True))
            if params.adversarial_loss == "relativistic":
                return relativistic_loss(real_scores, fake_scores) + penalty
            return discriminator_loss(real_scores, fake_scores, params.adversarial_loss) + penalty

    def generator_losses(self, batch: AlignedBatch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the thesis' equation 2."""
        params, network = self.params, self.network
        losses: dict[str, Tensor] = {}
        images, result = network.align(batch.images), network.aligned(made)  # (B,C,H,W) each
        in_input_range = network.in_input_range(made) if params.alignment == "tanh" else result
        if params.lambda_adversarial:
            losses["adversarial"] = params.lambda_adversarial * self.adversarial_term(batch, result)
        if params.lambda_classifier:
            seen = result if params.classifier_sees == "aligned" else in_input_range
            target = healthy_target(params, batch.logits)
            divergence = kl_to_target(self.classifier(seen).float(), target, params.kl)
            losses["classifier"] = params.lambda_classifier * divergence
        if params.lambda_reconstruction:
            if params.reconstruction == "dilated":
                reconstruction = dilated_difference(images, result, params.dilation_px)
            else:  # COIN equation 4
                cycled = network.aligned(network.total(in_input_range, self.features_of(in_input_range)))
                cycle_target = images if params.cycle_target == "input" else result.detach()
                reconstruction = (images - result).abs().mean() + (cycle_target - cycled).abs().mean()
            losses["reconstruction"] = params.lambda_reconstruction * per_lesion(reconstruction, self.lesion_fraction)
        if params.lambda_total_variation:
            variation = total_variation((images - result).abs(), params.total_variation_scale)
            losses["total_variation"] = params.lambda_total_variation * variation
        return losses

    def adversarial_term(self, batch: AlignedBatch, result: Tensor) -> Tensor:
        """The network's part of the adversarial loss, for counterfactuals (B,C,H,W) as the discriminator sees them."""
        kind = self.params.adversarial_loss
        real_labels, fake_labels = self.conditions(batch)
        if kind != "relativistic":
            return generator_loss(self.discriminator(result, fake_labels), kind)
        with parametrize.cached():  # both under the same weights: a forward moves the spectral norm's estimate
            fake = self.discriminator(result, fake_labels)
            with torch.no_grad():
                real_scores = self.discriminator(self.real_images(batch), real_labels)
        return relativistic_loss(fake.float(), real_scores.float())

    @torch.no_grad()
    def features_of(self, images: Tensor) -> Tensor | None:
        """The classifier's penultimate features (B,F) of images (B,C,H,W), where the network takes them."""
        if not self.params.classifier_features:
            return None
        return self.classifier.penultimate(images).float()

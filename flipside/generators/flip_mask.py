"""flip_mask [own]: the smallest region whose refilling with healthy content flips the classifier, as a mask.

x_cf = x + M (C - x): one U-Net gives the mask M in [0,1] and the content C of a slice. It sees pairs of an abnormal and
a healthy slice of about the same height. M is large enough that the filled slice is called healthy and that the healthy
partner with the slice's pixels inside M pasted into it is called abnormal; it is no larger than that. A discriminator
of patches keeps the filled slice like the partners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from flipside.classifiers.augmentation import AnyTransform, augment
from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.base.data import Batch, TrainingSlices, draw_pairs
from flipside.generators.base.generator import clamped, filled
from flipside.generators.nn.losses import relativistic_loss, squared_gradient_norms
from flipside.generators.nn.patch_networks import PatchDiscriminator
from flipside.generators.nn.unet import UNet
from flipside.generators.training.adversarial import AdversarialGenerator, TrainingParams

FIRST_LOGIT = -2.0  # the mask's, of an untrained network: small, so that it begins next to empty


class FlipMaskParams(TrainingParams):
    """Section `generators.flip_mask`. Weights mean the same at every image size and size of lesions."""

    channels: list[int] = Field(min_length=1)
    """Channels of the U-Net, the first at the images' size, each further one at half the size of the one before."""
    discriminator_channels: list[int] = Field(min_length=1)
    """Channels of the discriminator of patches, one block (factor 2 in size) each."""
    augmentation: list[AnyTransform]
    """Random transforms of either slice of a pair on its own, as for classifiers; []: none."""
    height_bins: PositiveInt
    """Number of bins of the relative height within which slices are paired."""
    margin: float = Field(ge=0)
    """How far beyond 0 the classifier's logit is driven, of filled slices down and of pasted ones up."""
    lambda_classifier: float = Field(ge=0)
    """Weight of the classifier's loss on filled slices."""
    lambda_paste: float = Field(ge=0)
    """Weight of the classifier's loss on healthy partners with the slice's pixels inside M; 0 leaves it out."""
    lambda_adversarial: float = Field(ge=0)
    """Weight of the adversarial loss of filled slices; 0 leaves it out."""
    lambda_area: float = Field(ge=0)
    """Weight of M's area in lesions (`lesion_fraction`)."""
    healthy_area: float = Field(ge=0)
    """How much more the area of a healthy slice's M weighs, which should be empty."""
    lambda_undecided: float = Field(ge=0)
    """Weight of the area, in lesions, in which M is neither 0 nor 1."""
    lambda_total_variation: float = Field(ge=0)
    """Weight of the length of M's outline, in sides of a square lesion."""
    lambda_identity: float = Field(ge=0)
    """Weight of the content's mean absolute change of healthy slices."""
    ramp: float = Field(ge=0, lt=1)
    """Share of the training over which the weights of area, indecision and outline grow from 0."""
    r1_gamma: float = Field(ge=0)
    """The discriminator's gradient penalty R1 on partners weighs gamma / 2; 0 leaves it out."""
    r1_every: PositiveInt
    """R1 is taken at every n-th step, with n times the weight."""

    def ramp_at(self, step: int) -> float:
        """The share of their weights that area, indecision and outline have at a step, in [0,1]."""
        return min(1.0, (step + 1) / (self.ramp * self.steps)) if self.ramp else 1.0


class MaskNetwork(nn.Module):
    """Images (B,C,H,W) in [-1,1] -> x_cf (B,C,H,W); `parts` gives what it is made of."""

    def __init__(self, channels: list[int], image_channels: int = 1):
        super().__init__()
        self.network = UNet(image_channels, channels, 1 + image_channels)
        weight, bias = self.network.head.parameters()
        nn.init.zeros_(weight)
        nn.init.zeros_(bias)
        nn.init.constant_(bias[:1], FIRST_LOGIT)

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """M (B,1,H,W) in [0,1] and the content C (B,C,H,W) in [-1,1]."""
        maps = self.network(images).float()
        return torch.sigmoid(maps[:, :1]), clamped(images + maps[:, 1:])

    def forward(self, images: Tensor) -> Tensor:
        mask, content = self.parts(images)
        return filled(images, mask, content)


@dataclass(frozen=True, kw_only=True)
class PairedBatch(Batch):
    """Slices labelled abnormal (`images`), each with a healthy one of about its height."""

    healthy: Tensor  # (B,C,H,W) in [-1,1]


class FlipMask(AdversarialGenerator[FlipMaskParams, PairedBatch]):
    """The mask-and-content network. What is made of a batch is M beside C, (2B,1+C,H,W): of the abnormal slices, then
    of their partners."""

    Params = FlipMaskParams
    network: MaskNetwork

    def __init__(self, params: FlipMaskParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.network = self.build(self.architecture_of(params, classifier))
        self.discriminator = PatchDiscriminator(params.discriminator_channels, norm=False,
                                                image_channels=classifier.image_channels)

    @staticmethod
    def architecture_of(params: FlipMaskParams, classifier: Classifier) -> dict[str, Any]:
        return {"channels": params.channels, "image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> MaskNetwork:
        return MaskNetwork(**architecture)

    def draw(self, data: TrainingSlices, generator: Generator) -> PairedBatch:
        """Pairs, augmented. Logits and organ are those of the slices before augmentation."""
        rows, partners = draw_pairs(data, self.params.batch_size, self.params.height_bins, generator)
        batch = data.batch(rows, generator)
        images = augment(batch.images, self.params.augmentation, generator)
        healthy = augment(data.images_at(partners), self.params.augmentation, generator)
        return PairedBatch(**vars(batch) | {"images": images}, healthy=healthy)

    def generate(self, batch: PairedBatch) -> Tensor:
        return torch.cat(self.network.parts(torch.cat([batch.images, batch.healthy])), dim=1)

    def discriminator_loss(self, batch: PairedBatch, made: Tensor) -> Tensor | None:
        """Relativistic, partners above filled slices, with R1 on the partners where the step has it.

        R1 is ||d sum of logits / d image||^2 over the number of patches, so that it doesn't grow with the image.
        """
        params = self.params
        if not params.lambda_adversarial:
            return None
        mask, content = split(made[: len(batch.images)].detach())
        fake = self.discriminator(filled(batch.images, mask, content))
        if not params.r1_gamma or batch.step % params.r1_every:
            return relativistic_loss(self.discriminator(batch.healthy), fake)
        with torch.autocast(made.device.type, enabled=False):  # second derivatives need full precision
            healthy = batch.healthy.detach().requires_grad_()
            real = self.discriminator(healthy)  # (B,1,h,w)
            penalty = squared_gradient_norms(real, healthy).mean() / real[0].numel()
            return relativistic_loss(real, fake.float()) + params.r1_every * params.r1_gamma / 2 * penalty

    def generator_losses(self, batch: PairedBatch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms; those of the mask's shape grow over the first steps."""
        params, unit, count = self.params, self.lesion_fraction, len(batch.images)
        masks, contents = split(made)
        mask, healthy_mask = masks[:count], masks[count:]
        result = filled(batch.images, mask, contents[:count])
        grown = params.ramp_at(batch.step)
        terms = {
            "classifier": (params.lambda_classifier, lambda: called_healthy(self.classifier(result), params.margin)),
            "paste": (params.lambda_paste, lambda: called_healthy(
                -self.classifier(filled(batch.healthy, mask, batch.images)), params.margin)),
            "adversarial": (params.lambda_adversarial, lambda: self.adversarial_term(batch, result)),
            "area": (grown * params.lambda_area, lambda: relative_area(mask, unit)),
            "healthy_area": (grown * params.lambda_area * params.healthy_area,
                             lambda: relative_area(healthy_mask, unit)),
            "undecided": (grown * params.lambda_undecided, lambda: relative_area(4 * masks * (1 - masks), unit)),
            "total_variation": (grown * params.lambda_total_variation, lambda: relative_outline(masks, unit)),
            "identity": (params.lambda_identity, lambda: (contents[count:] - batch.healthy).abs().mean()),
        }
        return {name: weight * term() for name, (weight, term) in terms.items() if weight}

    def adversarial_term(self, batch: PairedBatch, result: Tensor) -> Tensor:
        """Filled slices (B,C,H,W) above the partners, patch by patch."""
        with torch.no_grad():
            real = self.discriminator(batch.healthy)
        return relativistic_loss(self.discriminator(result).float(), real.float())


def split(made: Tensor) -> tuple[Tensor, Tensor]:
    """(B,1+C,H,W) -> M (B,1,H,W) and C (B,C,H,W)."""
    return made[:, :1], made[:, 1:]


def called_healthy(logits: Tensor, margin: float) -> Tensor:
    """How far logits (B,) are from `margin` below 0: mean of softplus(logit + margin)."""
    return F.softplus(logits.float() + margin).mean()


def relative_area(masks: Tensor, lesion_fraction: float) -> Tensor:
    """Mean area of masks (B,1,H,W) in [0,1], in lesions of this share of the slice."""
    return masks.mean() / lesion_fraction


def relative_outline(masks: Tensor, lesion_fraction: float) -> Tensor:
    """Mean length of the outline of masks (B,1,H,W) in [0,1], in sides of a square of this share of the slice: 4 of
    such a square. It is the total variation, the sum of neighbours' absolute differences."""
    side = (lesion_fraction * masks.shape[2] * masks.shape[3]) ** 0.5  # pixels
    rows, columns = masks.diff(dim=2).abs(), masks.diff(dim=3).abs()
    return (rows.sum(dim=(1, 2, 3)) + columns.sum(dim=(1, 2, 3))).mean() / side

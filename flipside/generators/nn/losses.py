"""Loss terms of COIN and its relatives, each a small function headed by its equation. Means are over the batch.

A weight means the same at every image size: terms that are published as means over the image's pixels are counted here
in the image and the lesion that the published weights were tuned with, `per_lesion` and `total_variation`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialLoss = Literal["bce", "hinge", "mse"]
KullbackLeibler = Literal["logits", "clamped_probability"]

# What COIN's published weights were tuned with: 256 x 256 pixels, synthetic anomalies of about 21 of them.
PUBLISHED_PIXELS = 256 * 256
PUBLISHED_LESION = 21 / PUBLISHED_PIXELS  # share of the image


def discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialLoss) -> Tensor:
    """Half the sum over real and fake logits (B,); COIN equation 2 (bce), hinge and least squares as alternatives."""
    if kind == "bce":  # -log sigma(real), -log(1 - sigma(fake))
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
    if kind == "hinge":
        return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    return 0.5 * (((real - 1) ** 2).mean() + (fake**2).mean())


def generator_loss(fake: Tensor, kind: AdversarialLoss) -> Tensor:
    """The generator's part on fake logits (B,): non-saturating for bce."""
    if kind == "bce":
        return F.softplus(-fake).mean()
    if kind == "hinge":
        return -fake.mean()
    return ((fake - 1) ** 2).mean()


def relativistic_loss(higher: Tensor, lower: Tensor) -> Tensor:
    """How far logits (B,) that should be higher are from standing above their partners (B,): softplus(lower - higher).

    RpGAN (Jolicoeur-Martineau 2019; Huang et al. 2024): the discriminator wants real above fake, the generator fake
    above real.
    """
    return F.softplus(lower - higher).mean()


def squared_gradient_norms(logits: Tensor, images: Tensor) -> Tensor:
    """||d logit / d image||^2 of each image, summed over its pixels and channels, (B,); differentiable.

    `images` (B,C,H,W) are the leaf that the logits (B,) were computed from. Half its mean times gamma is R1 on real and
    R2 on generated images (Mescheder et al. 2018; Huang et al. 2024, equation 3).
    """
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.square().sum(dim=(1, 2, 3))


def kl_to_target(logits: Tensor, target: Tensor, kind: KullbackLeibler) -> Tensor:
    """KL(target || sigmoid(logits)) between Bernoulli distributions; both (B,), target in [0,1]. COIN equation 3.

    `logits` has a gradient everywhere. `clamped_probability` clamps both to [1e-5, 1 - 1e-5] as the authors' code
    does, and has none where the classifier is surer than that.
    """
    if kind == "logits":
        entropy = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target))
        return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") - entropy).mean()
    p = target.clamp(1e-5, 1 - 1e-5)
    q = torch.sigmoid(logits).clamp(1e-5, 1 - 1e-5)
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()


def per_lesion(mean: Tensor, lesion_fraction: float, published: float = PUBLISHED_LESION) -> Tensor:
    """A mean over all pixels of an image, as if the lesion covered the `published` share of it.

    Changing a lesion then costs the same whatever share of the image it covers (`lesion_fraction`), and a published
    weight means what it meant there. A mean itself does not depend on the image's size.
    """
    return mean * (published / lesion_fraction)


def total_variation(difference: Tensor, scale: float) -> Tensor:
    """Squared differences of neighbours, summed over each axis, of a map (B,C,H,W) times `scale`; over 256 x 256.

    COIN equation 6, applied to the difference map; at 256 x 256 pixels its mean (each axis with its own). The sum of a
    smooth map is the same at every resolution, its mean is not. With x in [-1,1] the authors' 0..255 scale is `scale` =
    127.5.
    """
    scaled = difference * scale
    rows = (scaled[..., 1:, :] - scaled[..., :-1, :]) ** 2
    columns = (scaled[..., :, 1:] - scaled[..., :, :-1]) ** 2
    pixels = difference.shape[-2] * difference.shape[-1]
    return (rows.mean() + columns.mean()) * (pixels / PUBLISHED_PIXELS)


def masked_l1(images: Tensor, others: Tensor, organ: Tensor) -> Tensor:
    """CARL: the mean |x - x'| inside the organ plus the one outside of it, each image's own, averaged (COIN eq. 11).

    Images (B,C,H,W), of whose difference the mean over the channels counts; organ (B,1,H,W) bool. A part that an image
    lacks counts 0. The published code leaves a lesion's own pixels out of both masks; that would tell where the lesion
    is, so here it belongs to the organ or the rest.
    """
    difference, terms = (images - others).abs().mean(dim=1, keepdim=True), []  # (B,1,H,W)
    for mask in (organ, ~organ):
        area = mask.sum(dim=(1, 2, 3)).clamp(min=1)
        terms.append((difference * mask).sum(dim=(1, 2, 3)) / area)  # (B,)
    return (terms[0] + terms[1]).mean()


def dilated_difference(images: Tensor, others: Tensor, kernel: int) -> Tensor:
    """|x - x'| on the scale [0,1], dilated by a square of `kernel` pixels, summed, over the number of pixels (of all
    channels).

    COIN-Aligned, section 3.7.2: scattered changes cost more than the same changes side by side. Images (B,C,H,W) in
    [-1,1]; unpadded, as the published code.
    """
    difference = (images - others).abs() / 2
    return F.max_pool2d(difference, kernel, stride=1).sum() / difference.numel()

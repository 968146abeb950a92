"""CX-GAN: a counterfactual instance and a map from two generators in a cycle, on image-level labels alone.

Murtaza 2026 (arXiv:2605.05283) and its twin Zia et al. 2023 (arXiv:2301.08939); no classifier takes part. x is
abnormal, y healthy. Integrated model: G makes x healthy, F makes of a healthy image the map of an abnormality, so that
G(x) + F(G(x)) is x again and y + F(y) is abnormal; the attribution is M(x) = -F(G(x)). Cascaded model: a CycleGAN,
whose second generator makes the abnormal image itself, and a network M with x + M(x) = G(x). Published as two
trainings; here M learns beside the CycleGAN from what G makes at that step, and gives nothing back to it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from flipside.generators.nn.losses import discriminator_loss, generator_loss
from flipside.generators.nn.networks import Networks, clamped
from flipside.generators.nn.patch_networks import InstanceUNet, PatchDiscriminator, ReplayPool
from flipside.generators.training.batches import Batch, UnpairedParams, draw_unpaired

Variant = Literal["integrated", "cascaded"]
draw = draw_unpaired  # x and y: as many slices of either label


class GeneratorParams(UnpairedParams):
    """Section `generators.cx_gan`."""

    variant: Variant
    channels: list[int] = Field(min_length=1)
    """Of each U-Net's encoder, one block (factor 2 in size) each."""
    discriminator_channels: list[int] = Field(min_length=1)
    fuse: Literal["tanh", "clamp"]
    """G makes the whole image, tanh(G), as published; clamp: the image plus G."""
    replay: int = Field(ge=0)
    """Generated images that a discriminator is shown again; 0: none."""
    lambda_adversarial: float = Field(ge=0)
    lambda_cycle: float = Field(ge=0)
    lambda_identity: float = Field(ge=0)
    lambda_map: float = Field(ge=0)
    """Mean |M|; published: 0."""
    lambda_map_adversarial: float = Field(ge=0)
    """Cascaded: of x + M(x)."""
    lambda_map_distance: float = Field(ge=0)
    """Cascaded: of x + M(x) to G(x)."""


class CxGenerator(nn.Module):
    """The generators of either variant; images (B,1,H,W) in [-1,1], maps in [-1,1]."""

    def __init__(self, variant: Variant, channels: list[int], fuse: Literal["tanh", "clamp"]):
        super().__init__()
        self.variant, self.fuse = variant, fuse
        self.to_healthy, self.back = InstanceUNet(channels), InstanceUNet(channels)
        if variant == "cascaded":
            self.mapper = InstanceUNet(channels)

    def _image(self, network: nn.Module, images: Tensor) -> Tensor:
        return torch.tanh(network(images)) if self.fuse == "tanh" else clamped(images + network(images))

    def healthy(self, images: Tensor) -> Tensor:
        """G(x), the counterfactual instance."""
        return self._image(self.to_healthy, images)

    def total(self, images: Tensor) -> Tensor:
        """y + F(y), which may leave the range; the cascaded model's second generator makes an image of its own."""
        if self.variant == "integrated":
            return images + torch.tanh(self.back(images))
        return self._image(self.back, images)

    def abnormal(self, images: Tensor) -> Tensor:
        """The same as an image: brought into the range."""
        return clamped(self.total(images))

    def change(self, images: Tensor, healthy: Tensor) -> Tensor:
        """The map M(x) (B,1,H,W) in [-1,1] of images x with their counterfactual instances G(x): what to add to x."""
        if self.variant == "integrated":
            return -torch.tanh(self.back(healthy))
        return torch.tanh(self.mapper(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.healthy(images)


class CxDiscriminator(nn.Module):
    """One PatchGAN per kind of image, each with a pool of what it has seen of the generators."""

    def __init__(self, variant: Variant, channels: list[int], replay: int):
        super().__init__()
        kinds = ["healthy", "abnormal", *(["mapped"] if variant == "cascaded" else [])]
        self.networks = nn.ModuleDict({kind: PatchDiscriminator(channels) for kind in kinds})
        self.pools = nn.ModuleDict({kind: ReplayPool(replay) for kind in kinds})


def build(architecture: dict[str, Any]) -> CxGenerator:
    """The generators from what `model.json` keeps as their architecture."""
    return CxGenerator(**architecture)


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    return {"variant": params.variant, "channels": params.channels, "fuse": params.fuse}


def build_networks(params: GeneratorParams, classifier: nn.Module) -> Networks:
    discriminator = CxDiscriminator(params.variant, params.discriminator_channels, params.replay)
    return Networks(build(architecture_of(params, classifier)), discriminator, classifier)


def generate(networks: Networks, params: GeneratorParams, batch: Batch) -> Tensor:
    """G(x) and abnormal images of y, one after the other; cascaded: then x + M(x). (2B,1,H,W) or (3B,1,H,W).

    Sums are left as they are: cut to the range, a map that points out of it, as it can in air, would be hidden from the
    discriminator and cost nothing, and maps are the attribution.
    """
    generator = networks.generator
    healthy = generator.healthy(batch.images)
    made = [healthy, generator.total(batch.healthy)]
    if params.variant == "cascaded":
        made.append(batch.images + generator.change(batch.images, healthy))
    return torch.cat(made)


def discriminator_step(networks: Networks, params: GeneratorParams, batch: Batch, made: Tensor) -> Tensor:
    """The discriminators' least-squares losses, summed; generated images come out of their pools."""
    discriminator, loss = networks.discriminator, 0.0
    reals = {"healthy": batch.healthy, "abnormal": batch.images, "mapped": batch.healthy}
    kinds = list(discriminator.networks)
    for kind, fake in zip(kinds, made.detach().chunk(len(kinds)), strict=True):
        network = discriminator.networks[kind]
        shown = discriminator.pools[kind](fake, batch.uniform)
        loss = loss + discriminator_loss(network(reals[kind]), network(shown), "mse")
    return loss


def generator_step(networks: Networks, params: GeneratorParams, batch: Batch, made: Tensor) -> dict[str, Tensor]:
    """The generators' weighted loss terms by name; their sum is what is minimised."""
    generator, discriminators = networks.generator, networks.discriminator.networks
    x, y = batch.images, batch.healthy
    healthy, abnormal, *mapped = made.chunk(len(discriminators))
    losses = {
        "adversarial": params.lambda_adversarial * (generator_loss(discriminators["healthy"](healthy), "mse")
                                                    + generator_loss(discriminators["abnormal"](abnormal), "mse")),
        "cycle": params.lambda_cycle * ((generator.total(healthy) - x).abs().mean()
                                        + (generator.healthy(abnormal) - y).abs().mean()),
        "identity": params.lambda_identity * ((generator.healthy(y) - y).abs().mean()
                                              + (generator.total(x) - x).abs().mean()),
    }
    if params.lambda_map:
        losses["map"] = params.lambda_map * generator.change(x, healthy).abs().mean()
    if mapped:
        losses["map_adversarial"] = (params.lambda_map_adversarial
                                     * generator_loss(discriminators["mapped"](mapped[0]), "mse"))
        losses["map_distance"] = params.lambda_map_distance * (mapped[0] - healthy.detach()).abs().mean()
    return losses

"""CX-GAN: a counterfactual instance and a map from two generators in a cycle, on image-level labels alone.

Murtaza 2026 (arXiv:2605.05283) and its twin Zia et al. 2023 (arXiv:2301.08939); no classifier takes part. x is
abnormal, y healthy. Integrated model: G makes x healthy, F makes of a healthy image the map of an abnormality, so that
G(x) + F(G(x)) is x again and y + F(y) is abnormal; the attribution is M(x) = -F(G(x)). Cascaded model: a CycleGAN,
whose second generator makes the abnormal image itself, and a network M with x + M(x) = G(x). Published as two
trainings; here M is trained along with the CycleGAN on what G makes at that step, without gradients into it.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.generator import clamped
from flipside.generators.nn.losses import discriminator_loss, generator_loss
from flipside.generators.nn.patch_networks import InstanceUNet, PatchDiscriminator, ReplayPool
from flipside.generators.training.adversarial import AdversarialGenerator
from flipside.generators.training.unpaired import UnpairedBatch, UnpairedParams, draw_unpaired

Variant = Literal["integrated", "cascaded"]


class CxGanParams(UnpairedParams):
    """Section `generators.cx_gan`."""

    variant: Variant
    """integrated: one network makes healthy images, the other maps. cascaded: a CycleGAN, and a network for maps."""
    channels: list[int] = Field(min_length=1)
    """Channels of each U-Net's encoder, one block (factor 2 in size) each."""
    discriminator_channels: list[int] = Field(min_length=1)
    """Channels of each discriminator, one block (factor 2 in size) each."""
    fuse: Literal["tanh", "clamp"]
    """tanh: G makes the whole image, tanh(G), as published. clamp: G is added to the image, clamped to [-1,1]."""
    replay: int = Field(ge=0)
    """Number of earlier generated images that a discriminator may be shown again; 0: none."""
    lambda_adversarial: float = Field(ge=0)
    """Weight of the adversarial losses of healthy and abnormal images."""
    lambda_cycle: float = Field(ge=0)
    """Weight of the difference after the way to the other label and back."""
    lambda_identity: float = Field(ge=0)
    """Weight of the change to images that have the label already."""
    lambda_map: float = Field(ge=0)
    """Weight of the mean absolute map |M|; published: 0."""
    lambda_map_adversarial: float = Field(ge=0)
    """Weight of the adversarial loss of x + M(x) in the cascaded model."""
    lambda_map_distance: float = Field(ge=0)
    """Weight of the distance between x + M(x) and G(x) in the cascaded model."""


class CxNetwork(nn.Module):
    """The networks of either variant; images (B,C,H,W) in [-1,1], maps in [-1,1]."""

    def __init__(self, variant: Variant, channels: list[int], fuse: Literal["tanh", "clamp"], image_channels: int = 1):
        super().__init__()
        self.variant, self.fuse = variant, fuse
        self.to_healthy, self.back = (InstanceUNet(channels, image_channels) for _ in range(2))
        if variant == "cascaded":
            self.mapper = InstanceUNet(channels, image_channels)

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
        """The map M(x) (B,C,H,W) in [-1,1] of images x with their counterfactual instances G(x): what to add to x."""
        if self.variant == "integrated":
            return -torch.tanh(self.back(healthy))
        return torch.tanh(self.mapper(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.healthy(images)


class CxDiscriminator(nn.Module):
    """One PatchGAN per kind of image, each with a pool of generated images that it has seen."""

    def __init__(self, variant: Variant, channels: list[int], replay: int, image_channels: int):
        super().__init__()
        kinds = ["healthy", "abnormal", *(["mapped"] if variant == "cascaded" else [])]
        self.networks = nn.ModuleDict({kind: PatchDiscriminator(channels, image_channels=image_channels)
                                       for kind in kinds})
        self.pools = nn.ModuleDict({kind: ReplayPool(replay) for kind in kinds})


class CxGan(AdversarialGenerator[CxGanParams, UnpairedBatch]):
    """G(x), F and, cascaded, M, each against a discriminator of its own."""

    Params = CxGanParams
    network: CxNetwork
    discriminator: CxDiscriminator

    def __init__(self, params: CxGanParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.discriminator = CxDiscriminator(params.variant, params.discriminator_channels, params.replay,
                                             classifier.image_channels)
        self.network = self.build(self.architecture_of(params, classifier))

    @staticmethod
    def architecture_of(params: CxGanParams, classifier: Classifier) -> dict[str, Any]:
        return {"variant": params.variant, "channels": params.channels, "fuse": params.fuse,
                "image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> CxNetwork:
        return CxNetwork(**architecture)

    def draw(self, data: TrainingSlices, generator: Generator) -> UnpairedBatch:
        return draw_unpaired(self.params, data, generator)

    def generate(self, batch: UnpairedBatch) -> Tensor:
        """G(x) and abnormal images of y, one after the other; cascaded: then x + M(x). (2B,C,H,W) or (3B,C,H,W).

        Sums are left as they are: if they were cut to the range, a map that points out of it, as it can in air, would
        be hidden from the discriminator and cost nothing, and maps are the attribution.
        """
        healthy = self.network.healthy(batch.images)
        made = [healthy, self.network.total(batch.healthy)]
        if self.params.variant == "cascaded":
            made.append(batch.images + self.network.change(batch.images, healthy))
        return torch.cat(made)

    def discriminator_loss(self, batch: UnpairedBatch, made: Tensor) -> Tensor:
        """The discriminators' least-squares losses, summed; generated images come out of their pools."""
        networks, pools = self.discriminator.networks, self.discriminator.pools
        reals = {"healthy": batch.healthy, "abnormal": batch.images, "mapped": batch.healthy}
        losses = []
        for kind, fake in zip(networks, made.detach().chunk(len(networks)), strict=True):
            shown = pools[kind](fake, batch.uniform)
            losses.append(discriminator_loss(networks[kind](reals[kind]), networks[kind](shown), "mse"))
        return functools.reduce(operator.add, losses)

    def generator_losses(self, batch: UnpairedBatch, made: Tensor) -> dict[str, Tensor]:
        """The networks' weighted terms."""
        params, network, discriminators = self.params, self.network, self.discriminator.networks
        x, y = batch.images, batch.healthy
        healthy, abnormal, *mapped = made.chunk(len(discriminators))
        losses = {
            "adversarial": params.lambda_adversarial * (generator_loss(discriminators["healthy"](healthy), "mse")
                                                        + generator_loss(discriminators["abnormal"](abnormal), "mse")),
            "cycle": params.lambda_cycle * ((network.total(healthy) - x).abs().mean()
                                            + (network.healthy(abnormal) - y).abs().mean()),
            "identity": params.lambda_identity * ((network.healthy(y) - y).abs().mean()
                                                  + (network.total(x) - x).abs().mean()),
        }
        if params.lambda_map:
            losses["map"] = params.lambda_map * network.change(x, healthy).abs().mean()
        if mapped:
            losses["map_adversarial"] = (params.lambda_map_adversarial
                                         * generator_loss(discriminators["mapped"](mapped[0]), "mse"))
            losses["map_distance"] = params.lambda_map_distance * (mapped[0] - healthy.detach()).abs().mean()
        return losses

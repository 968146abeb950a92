"""BlobGAN (Epstein et al. 2022): a generator whose latent space is a set of blobs, each with a place and a look.

TACE and OCTET search counterfactuals in that space. `training: adversarial` is the published training: logistic loss,
lazy R1, jitter, nothing else. `joint` trains the encoder along with the generator: most steps reconstruct slices, which
costs half as much, and every `sampled_every`-th is an adversarial one. A generator that learns from the discriminator
alone is still coarse after ten minutes on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from flipside.classifiers.perceptual import Observer
from flipside.generators.nn.blob_renderer import LayoutNetwork, Renderer
from flipside.generators.nn.blobs import Layout, jittered
from flipside.generators.nn.encoding import (
    ReconstructionWeights,
    build_encoder,
    layout_distance,
    observer_of,
    reconstruction_terms,
)
from flipside.generators.nn.logistic_gan import LogisticParams, check_side, logistic_loss
from flipside.generators.nn.networks import Networks
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.training import batches
from flipside.generators.training.batches import Batch, TrainingSlices


class GeneratorParams(LogisticParams):
    """Section `generators.blobgan`."""

    blobs: PositiveInt
    latent: PositiveInt
    """Numbers in z."""
    layout_width: PositiveInt
    """And in h."""
    layout_layers: int = Field(ge=2)
    feat: PositiveInt
    style: PositiveInt
    size_in: PositiveInt
    """Side of the map that the blobs are first splatted on."""
    channels: list[int]
    """Of the renderer, from size_in up to the image's size."""
    discriminator_channels: list[int]
    """From the image's size down."""
    encoder_channels: list[int]
    """The same, of the encoder."""
    training: Literal["adversarial", "joint"]
    sampled_every: PositiveInt
    """Joint: every n-th step starts with z, the others reconstruct slices."""
    lambda_adversarial: float = Field(ge=0)
    real: ReconstructionWeights
    """Joint: of the training images."""
    pixel_loss: Literal["l1", "l2"]
    lambda_latent: float = Field(ge=0)
    """Joint: of the generated images' blobs."""


class BlobGAN(nn.Module):
    """z -> h -> blobs -> image; with `joint` also its encoder, image -> h."""

    def __init__(self, blobs: int, latent: int, layout_width: int, layout_layers: int, feat: int, style: int,
                 size_in: int, channels: list[int], encoder_channels: list[int], joint: bool):
        super().__init__()
        self.latent = latent
        self.layout_network = LayoutNetwork(latent, layout_width, layout_layers, blobs, feat, style)
        self.renderer = Renderer(size_in, channels, feat, style)
        sizes = {"size_in": size_in, "channels": channels, "encoder_channels": encoder_channels,
                 "layout_width": layout_width}
        self.encoder = build_encoder(sizes) if joint else None

    def layout(self, z: Tensor) -> Tensor:
        """h (B,layout_width) of z (B,latent)."""
        return self.layout_network(z)

    def decode(self, h: Tensor) -> Layout:
        return self.layout_network.decode(h)

    def shares(self, layout: Layout) -> Tensor:
        """What is seen of background and blobs in each pixel, (B,K+1,H,W)."""
        return self.renderer.shares(layout)

    def render(self, layout: Layout, noise: Generator | None = None, shares: Tensor | None = None) -> Tensor:
        """Images (B,1,H,W) of a layout, with fixed noise unless a source of noise is given."""
        return self.renderer(layout, noise, shares)

    def forward(self, z: Tensor) -> Tensor:
        return self.render(self.decode(self.layout(z)))


@dataclass(frozen=True, kw_only=True)
class LatentBatch(Batch):
    """Slices for the discriminator and the encoder, and all random numbers of a step."""

    z: Tensor  # (2,B,latent): for the generator's step and for the discriminator's
    jitter: Tensor  # (2,B,K,4) in [-1,1)
    noise_seed: int


@dataclass
class BlobNetworks(Networks):
    observer: Observer


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    names = ("blobs", "latent", "layout_width", "layout_layers", "feat", "style", "size_in", "channels",
             "encoder_channels")
    return {name: getattr(params, name) for name in names} | {"joint": params.training == "joint"}


def build(architecture: dict[str, Any]) -> BlobGAN:
    """The generator from what `model.json` keeps as its architecture."""
    return BlobGAN(**architecture)


def build_networks(params: GeneratorParams, classifier: nn.Module) -> BlobNetworks:
    generator = build(architecture_of(params, classifier))
    discriminator = ResidualTrunk(generator.renderer.side, params.discriminator_channels, 1, minibatch_std=True)
    return BlobNetworks(generator, discriminator, classifier, observer_of(classifier))


def draw(params: GeneratorParams, data: TrainingSlices, generator: Generator) -> LatentBatch:
    """Slices as `balance` says, and fresh z, jitter and noise."""
    check_side("blobgan", params.size_in, params.channels, data.images)
    batch, count = batches.draw(params, data, generator), params.batch_size
    z = torch.randn(2, count, params.latent, generator=generator)
    jitter = torch.rand(2, count, params.blobs, 4, generator=generator) * 2 - 1
    seed = int(torch.randint(2**31, (), generator=generator))
    device = batch.images.device
    return LatentBatch(**vars(batch), z=z.to(device), jitter=jitter.to(device), noise_seed=seed)


def sampled(networks: Networks, batch: LatentBatch, turn: int) -> Layout:
    """Jittered blobs of one of the batch's two z."""
    generator = networks.generator
    return jittered(generator.decode(generator.layout(batch.z[turn])), batch.jitter[turn])


def rendered(networks: Networks, batch: LatentBatch, turn: int) -> Tensor:
    """Images (B,1,H,W) of these blobs, with the step's noise."""
    noise = Generator(batch.z.device).manual_seed(batch.noise_seed + turn)
    return networks.generator.render(sampled(networks, batch, turn), noise)


def adversarial_step(params: GeneratorParams, step: int) -> int | None:
    """Which of the adversarial steps a step is, counted from 0; None: it reconstructs slices."""
    every = params.sampled_every if params.training == "joint" else 1
    return None if step % every else step // every


def generate(networks: Networks, params: GeneratorParams, batch: LatentBatch) -> Tensor:
    """Images (B,1,H,W) of the z that are the generator's, or of the encoded slices."""
    if adversarial_step(params, batch.step) is not None:
        return rendered(networks, batch, 0)
    generator = networks.generator
    return generator.render(generator.decode(generator.encoder(batch.images)))


def discriminator_step(networks: Networks, params: GeneratorParams, batch: LatentBatch,
                       counterfactual: Tensor) -> Tensor | None:
    """Logistic loss on slices and on images of z of its own, with the lazy gradient penalty; None where the step
    reconstructs slices."""
    if (step := adversarial_step(params, batch.step)) is None:
        return None
    with torch.no_grad():
        fake = rendered(networks, batch, 1)
    return logistic_loss(networks.discriminator, batch.images, fake, params, step)


def generator_step(networks: BlobNetworks, params: GeneratorParams, batch: LatentBatch,
                   counterfactual: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms by name: its images of z shall look real; joint: it shall give back what was
    encoded, slices and (`lambda_latent`) the blobs of its own images.

    The joint terms are equation 2 of TACE, in which here the generator learns too.
    """
    generator, observer = networks.generator, networks.observer
    if adversarial_step(params, batch.step) is None:
        with torch.no_grad():
            view = observer(batch.images)
        return reconstruction_terms(params.real, params.pixel_loss, observer, batch.images, counterfactual, view)
    losses = {"adversarial": params.lambda_adversarial * F.softplus(-networks.discriminator(counterfactual)).mean()}
    if params.training == "joint" and params.lambda_latent:
        with torch.no_grad():
            layout = sampled(networks, batch, 0)
        found = generator.decode(generator.encoder(counterfactual.detach()))
        losses["latent"] = params.lambda_latent * layout_distance(found, layout).mean()
    return losses

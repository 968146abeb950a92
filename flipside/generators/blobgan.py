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
from torch import Generator, Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.base.data import Batch, TrainingSlices, draw_batch
from flipside.generators.codes.blobs import Layout, jittered
from flipside.generators.codes.reconstruction import (
    PixelLoss,
    ReconstructionWeights,
    layout_distance,
    observer_of,
    reconstruction_terms,
)
from flipside.generators.nn.blob_network import BlobNetwork
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.training.logistic import LogisticGenerator, LogisticParams, check_side


class BlobGANParams(LogisticParams):
    """Section `generators.blobgan`."""

    blobs: PositiveInt
    """Number of blobs in an image, beside the background."""
    blob_area: float = Field(gt=0, le=0.1)
    """Variance of a round blob, in squares of the image's side: its opacity falls off over the root of this. Published:
    0.02, about a seventh of the side; a blob of a small lesion needs a smaller one."""
    latent: PositiveInt
    """Length of the random vector z."""
    layout_width: PositiveInt
    """Length of h, the layout network's hidden vectors."""
    layout_layers: int = Field(ge=2)
    """Layers of the layout network."""
    feat: PositiveInt
    """Length of a blob's feature vector, its structure."""
    style: PositiveInt
    """Length of a blob's style vector."""
    size_in: PositiveInt
    """Side in pixels of the map that the blobs are first drawn on."""
    channels: list[int]
    """Channels of the renderer, from size_in up to the image's size, doubling it."""
    discriminator_channels: list[int]
    """Channels of the discriminator, from the image's size down."""
    encoder_channels: list[int]
    """Channels of the encoder, from the image's size down."""
    training: Literal["adversarial", "joint"]
    """adversarial: as published. joint: the encoder is trained along, and most steps reconstruct slices."""
    sampled_every: PositiveInt
    """In joint training every n-th step starts from z, the others reconstruct slices."""
    lambda_adversarial: float = Field(ge=0)
    """Weight of the adversarial loss."""
    real: ReconstructionWeights
    """Weights of the reconstruction of slices in joint training."""
    pixel_loss: PixelLoss
    """Difference in pixels of a reconstruction: absolute (l1) or squared (l2)."""
    lambda_latent: float = Field(ge=0)
    """Weight of the distance between generated images' blobs and those found in them, in joint training; 0: none."""


@dataclass(frozen=True, kw_only=True)
class LatentBatch(Batch):
    """Slices for the discriminator and the encoder, and all random numbers of a step."""

    z: Tensor  # (2,B,latent): for the generator's step and for the discriminator's
    jitter: Tensor  # (2,B,K,4) in [-1,1)
    noise_seed: int

    ROWS_ALONG = {"z": 1, "jitter": 1}


class BlobGAN(LogisticGenerator[BlobGANParams, LatentBatch]):
    """A generator of blobs, with `training: joint` together with its encoder."""

    Params = BlobGANParams
    network: BlobNetwork

    def __init__(self, params: BlobGANParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.network = self.build(self.architecture_of(params, classifier))
        side = self.network.renderer.side
        self.discriminator = ResidualTrunk(side, params.discriminator_channels, 1, True, classifier.image_channels)
        self.observer = observer_of(classifier)

    @staticmethod
    def architecture_of(params: BlobGANParams, classifier: Classifier) -> dict[str, Any]:
        names = ("blobs", "blob_area", "latent", "layout_width", "layout_layers", "feat", "style", "size_in",
                 "channels", "encoder_channels")
        return {name: getattr(params, name) for name in names} | {
            "joint": params.training == "joint", "image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> BlobNetwork:
        return BlobNetwork(**architecture)

    def draw(self, data: TrainingSlices, generator: Generator) -> LatentBatch:
        """Slices as `balance` says, and fresh z, jitter and noise."""
        params, count = self.params, self.params.batch_size
        check_side("blobgan", params.size_in, params.channels, data.images)
        batch = draw_batch(data, count, params.balance, generator)
        z = torch.randn(2, count, params.latent, generator=generator)
        jitter = torch.rand(2, count, params.blobs, 4, generator=generator) * 2 - 1
        seed = int(torch.randint(2**31, (), generator=generator))
        device = batch.images.device
        return LatentBatch(**vars(batch), z=z.to(device), jitter=jitter.to(device), noise_seed=seed)

    def sample_layout(self, batch: LatentBatch, turn: int) -> Layout:
        """Jittered blobs of one of the batch's two z."""
        return jittered(self.network.decode(self.network.layout(batch.z[turn])), batch.jitter[turn])

    def sample_images(self, batch: LatentBatch, turn: int) -> Tensor:
        """Images (B,C,H,W) of these blobs, with the step's noise."""
        noise = Generator(batch.z.device).manual_seed(batch.noise_seed + turn)
        return self.network.render(self.sample_layout(batch, turn), noise)

    def adversarial_step(self, step: int) -> int | None:
        """The number of a step among the adversarial ones, counted from 0; None: it reconstructs slices."""
        every = self.params.sampled_every if self.params.training == "joint" else 1
        return None if step % every else step // every

    def generate(self, batch: LatentBatch) -> Tensor:
        """Images (B,C,H,W) of the z that are the generator's, or of the encoded slices."""
        if self.adversarial_step(batch.step) is not None:
            return self.sample_images(batch, 0)
        return self.network.render(self.network.decode(self.network.encode(batch.images)))

    def discriminator_loss(self, batch: LatentBatch, made: Tensor) -> Tensor | None:
        """Logistic loss on slices and on images of z of its own, with the lazy gradient penalty; None where the step
        reconstructs slices."""
        if (step := self.adversarial_step(batch.step)) is None:
            return None
        with torch.no_grad():
            fake = self.sample_images(batch, 1)
        return self.logistic_loss(batch.images, fake, step)

    def generator_losses(self, batch: LatentBatch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms: images of z shall look real; in joint training slices shall be reconstructed, and
        (`lambda_latent`) the blobs of generated images.

        The joint terms are equation 2 of TACE, in which here the generator learns too.
        """
        params, network, observer = self.params, self.network, self.observer
        if self.adversarial_step(batch.step) is None:
            with torch.no_grad():
                view = observer(batch.images)
            return reconstruction_terms(params.real, params.pixel_loss, observer, batch.images, made, view)
        losses = {"adversarial": params.lambda_adversarial * F.softplus(-self.discriminator(made)).mean()}
        if params.training == "joint" and params.lambda_latent:
            with torch.no_grad():
                layout = self.sample_layout(batch, 0)
            found = network.decode(network.encode(made.detach()))
            losses["latent"] = params.lambda_latent * layout_distance(found, layout).mean()
        return losses

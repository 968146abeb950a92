"""StylEx's generator (Lang et al. 2021): StyleGAN2 conditioned on the classifier, trained together with an encoder.

The styles are made of w and of the classifier's answer (1 - p, p) to an image, so that the generator can draw what the
classifier sees. Steps from an encoded slice and steps from z alternate; an encoded slice is to be reconstructed, in
pixels and for the classifier. Weights that the publication doesn't state are those of its two reproductions (Atad et
al. 2022; NoahVl/Explaining-In-Style-Reproducibility-Study).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.core import ranks
from flipside.generators.base.data import Batch, TrainingSlices, draw_batch
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.nn.losses import kl_to_target
from flipside.generators.nn.style_network import StyleNetwork
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.training.logistic import LogisticGenerator, LogisticParams, check_side

PATH_DECAY = 0.01  # weight of each new path length in the running mean


class StyleGANParams(LogisticParams):
    """Section `generators.stylegan`."""

    latent: PositiveInt
    """Length of the random vector z."""
    width: PositiveInt
    """Length of w, which z is mapped to."""
    mapping_layers: PositiveInt
    """Layers of the mapping from z to w."""
    size_in: PositiveInt
    """Side in pixels of the learnt constant that the synthesis starts with."""
    channels: list[int]
    """Channels of the synthesis, from size_in up to the image's size, doubling it."""
    discriminator_channels: list[int]
    """Channels of the discriminator, from the image's size down."""
    encoder_channels: list[int]
    """Channels of the encoder, from the image's size down."""
    sampled_every: int = Field(ge=2)
    """Every n-th step starts from z, the others from encoded slices."""
    mixing: float = Field(ge=0, le=1)
    """Share of the steps from z whose images are made of two z each."""
    path_length_weight: float = Field(ge=0)
    """Weight of the path length penalty; 0 leaves it out."""
    path_length_every: PositiveInt
    """The path length penalty is taken at every n-th step, with n times the weight."""
    lambda_adversarial: float = Field(ge=0)
    """Weight of the adversarial loss."""
    lambda_perceptual: float = Field(ge=0)
    """Weight of a reconstruction's perceptual distance: LPIPS, or that of the classifier's maps without its weights."""
    lambda_pixel: float = Field(ge=0)
    """Weight of a reconstruction's mean absolute difference."""
    lambda_classifier: float = Field(ge=0)
    """Weight of KL(f(x) || f(reconstruction))."""
    lambda_code: float = Field(ge=0)
    """Weight of the difference between w of a slice and w of its reconstruction."""

    def penalty_every(self, network: str) -> int:
        if network == "generator":
            return self.path_length_every if self.path_length_weight else 0
        return super().penalty_every(network)


@dataclass(frozen=True, kw_only=True)
class StyleBatch(Batch):
    """Slices, and all random numbers of a step."""

    z: Tensor  # (2,B,latent): the second one from layer `crossover` on
    crossover: int
    noise_seed: int

    ROWS_ALONG = {"z": 1}


class StyleGAN(LogisticGenerator[StyleGANParams, StyleBatch]):
    """StyleGAN2 under the classifier's answer, with its encoder."""

    Params = StyleGANParams
    network: StyleNetwork

    def __init__(self, params: StyleGANParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.network = self.build(self.architecture_of(params, classifier))
        side = self.network.synthesis.side
        self.discriminator = ResidualTrunk(side, params.discriminator_channels, 1, True, classifier.image_channels)
        self.observer = observer_of(classifier)

    @staticmethod
    def architecture_of(params: StyleGANParams, classifier: Classifier) -> dict[str, Any]:
        names = ("latent", "width", "mapping_layers", "size_in", "channels", "encoder_channels")
        return {name: getattr(params, name) for name in names} | {"image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> StyleNetwork:
        return StyleNetwork(**architecture)

    def draw(self, data: TrainingSlices, generator: Generator) -> StyleBatch:
        """Slices as `balance` says, fresh z, noise, and where the second z takes over."""
        params = self.params
        check_side("stylegan", params.size_in, params.channels, data.images)
        batch, codes = draw_batch(data, params.batch_size, params.balance, generator), 2 * len(params.channels)
        z = torch.randn(2, params.batch_size, params.latent, generator=generator)
        crossover = int(torch.randint(1, codes, (), generator=generator))
        if float(torch.rand((), generator=generator)) >= params.mixing:
            crossover = codes
        seed = int(torch.randint(2**31, (), generator=generator))
        return StyleBatch(**vars(batch), z=z.to(batch.images.device), crossover=crossover, noise_seed=seed)

    def starts_with_slices(self, step: int) -> bool:
        """Whether a step's images are made of encoded slices, and not of z."""
        return step % self.params.sampled_every != self.params.sampled_every - 1

    def generate(self, batch: StyleBatch) -> Tensor:
        """Images (B,C,H,W) of the step, under what the classifier says of its slices."""
        network, probability = self.network, torch.sigmoid(batch.logits)
        noise = Generator(batch.z.device).manual_seed(batch.noise_seed)
        if self.starts_with_slices(batch.step):
            return network.render(network.encoded(batch.images, probability), noise)
        first, second = (network.codes(network.mapping(z)) for z in batch.z)  # (B,codes,width) each
        codes = torch.cat([first[:, : batch.crossover], second[:, batch.crossover :]], dim=1)
        return network.render(network.styles(codes, probability), noise)

    def discriminator_loss(self, batch: StyleBatch, made: Tensor) -> Tensor:
        """Logistic loss on slices and on the step's images, with the lazy gradient penalty."""
        return self.logistic_loss(batch.images, shown(made.detach()), batch.step)

    def generator_losses(self, batch: StyleBatch, made: Tensor) -> dict[str, Tensor]:
        """The weighted terms; those of the reconstruction where the step starts with slices."""
        params = self.params
        losses = {"adversarial": params.lambda_adversarial * F.softplus(-self.discriminator(shown(made))).mean()}
        if self.starts_with_slices(batch.step):
            losses |= self.reconstruction_losses(batch, made)
        if params.path_length_weight and batch.step % params.path_length_every == 0:
            weight = params.path_length_weight * params.path_length_every
            losses["path_length"] = weight * path_length_penalty(self.network, batch)
        return losses

    def reconstruction_losses(self, batch: StyleBatch, made: Tensor) -> dict[str, Tensor]:
        """Lang et al. 2021, section 3.2, of the slices and what was made of them (B,C,H,W): L_rec in pixels, maps and
        w, and L_cls, the classifier's own answer. The slices' w has no gradient, or both would shrink to nothing."""
        params, observer, encoder = self.params, self.observer, self.network.encoder
        with torch.no_grad():
            view, w = observer(batch.images), encoder(batch.images)
        image = shown(made)
        seen = observer(image)
        answer = torch.sigmoid(batch.logits)
        return {
            "perceptual": params.lambda_perceptual * observer.perceptual(seen, view).mean(),
            "pixel": params.lambda_pixel * (made - batch.images).abs().mean(),
            "classifier": params.lambda_classifier * kl_to_target(seen.logits.float(), answer, "logits"),
            "code": params.lambda_code * (encoder(image) - w).abs().mean(),
        }


def shown(made: Tensor) -> Tensor:
    """What the synthesis makes, in the range of images. Pixels that left it get no gradient but that of the pixel loss,
    which takes them back: passed on, those of networks, which can't be satisfied there, push them out for ever."""
    return made.clamp(-1, 1)


def path_length_penalty(network: StyleNetwork, batch: StyleBatch) -> Tensor:
    """Karras et al. 2020, equation 4: squared distance of ||J_w^T y|| to its running mean, on half of the batch."""
    whole = len(batch.images) * ranks.count()
    half = max(1, whole // 2)
    ranks.check_shares(half, ranks.count(), "in half a batch, on which the path length is taken,", "batch_size")
    half //= ranks.count()
    source = Generator(batch.z.device).manual_seed(batch.noise_seed + 1)
    with torch.autocast(batch.z.device.type, enabled=False):
        codes = network.codes(network.mapping(batch.z[0, :half]))  # (half,codes,width)
        images = network.render(network.styles(codes, torch.sigmoid(batch.logits[:half])), source)
        y = torch.randn(ranks.count() * half, *images.shape[1:], generator=source, device=images.device)
        y = ranks.share(y) / math.sqrt(images[0].numel())
        gradient, = torch.autograd.grad((images * y).sum(), codes, create_graph=True)
        lengths = (gradient.square().sum(dim=2).mean(dim=1) + 1e-8).sqrt()  # (half,)
        mean = network.path_length.lerp(ranks.mean(lengths.detach().mean()), PATH_DECAY)
        network.path_length.copy_(mean)
        return (lengths - mean).square().mean()

"""StylEx's generator (Lang et al. 2021): StyleGAN2 conditioned on the classifier, trained together with an encoder.

The classifier's answer (1 - p, p) to an image stands beside w in what the styles are made of, so that the generator
can draw what the classifier sees. Steps from an encoded slice and steps from z take turns; an encoded slice shall be
given back, to the eye and to the classifier. Weights that the publication leaves open are those of its two
reproductions (Atad et al. 2022; NoahVl/Explaining-In-Style-Reproducibility-Study).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from flipside.classifiers.perceptual import Observer
from flipside.generators.nn.encoding import observer_of
from flipside.generators.nn.logistic_gan import LogisticParams, check_side, logistic_loss
from flipside.generators.nn.losses import kl_to_target
from flipside.generators.nn.networks import Networks, clamped
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.nn.stylegan_synthesis import Mapping, Styles, Synthesis
from flipside.generators.training import batches
from flipside.generators.training.batches import Batch, TrainingSlices

PATH_DECAY = 0.01  # of the mean path length that is kept, at each penalty
CONDITION = 2  # numbers of the classifier's answer


class GeneratorParams(LogisticParams):
    """Section `generators.stylegan`."""

    latent: PositiveInt
    """Numbers in z."""
    width: PositiveInt
    """And in w."""
    mapping_layers: PositiveInt
    size_in: PositiveInt
    """Side of the learnt constant that the synthesis starts with."""
    channels: list[int]
    """Of the synthesis, from size_in up to the image's size."""
    discriminator_channels: list[int]
    """From the image's size down."""
    encoder_channels: list[int]
    """The same, of the encoder."""
    sampled_every: int = Field(ge=2)
    """Every n-th step starts with z, the others with encoded slices."""
    mixing: float = Field(ge=0, le=1)
    """Share of the steps from z whose images have two z each."""
    path_length_weight: float = Field(ge=0)
    path_length_every: PositiveInt
    """As r1_every, of the generator."""
    lambda_adversarial: float = Field(ge=0)
    lambda_perceptual: float = Field(ge=0)
    """Of the reconstruction: LPIPS, or the classifier's maps."""
    lambda_pixel: float = Field(ge=0)
    """Mean absolute difference."""
    lambda_classifier: float = Field(ge=0)
    """KL(f(x) || f(reconstruction))."""
    lambda_code: float = Field(ge=0)
    """Of w, encoded again from the reconstruction."""

    def penalty_every(self, network: str) -> int:
        if network == "generator":
            return self.path_length_every if self.path_length_weight else 0
        return super().penalty_every(network)


class StyleGAN(nn.Module):
    """z or a slice -> w, with the classifier's answer -> styles -> image."""

    def __init__(self, latent: int, width: int, mapping_layers: int, size_in: int, channels: list[int],
                 encoder_channels: list[int]):
        super().__init__()
        self.latent = latent
        self.mapping = Mapping(latent, width, mapping_layers)
        self.synthesis = Synthesis(size_in, channels, width + CONDITION)
        self.encoder = ResidualTrunk(self.synthesis.side, encoder_channels, width, minibatch_std=False)
        self.register_buffer("path_length", torch.zeros(()))

    def codes(self, w: Tensor) -> Tensor:
        """w (B,width) for every place that takes one: (B,codes,width)."""
        return w[:, None].expand(-1, self.synthesis.codes, -1)

    def styles(self, codes: Tensor, probability: Tensor) -> Styles:
        """Of codes (B,codes,width) under the classifier's probability of abnormal (B,)."""
        answer = torch.stack([1 - probability, probability], dim=1).to(codes.dtype)  # (B,2)
        return self.synthesis.styles(torch.cat([codes, answer[:, None].expand(-1, codes.shape[1], -1)], dim=2))

    def encoded(self, images: Tensor, probability: Tensor) -> Styles:
        """Styles of images (B,1,side,side), of which the classifier says `probability` (B,)."""
        return self.styles(self.codes(self.encoder(images)), probability)

    def sampled(self, z: Tensor, probability: Tensor) -> Styles:
        """Styles of z (B,latent)."""
        return self.styles(self.codes(self.mapping(z)), probability)

    def render(self, styles: Styles, noise: Generator | None = None) -> Tensor:
        """Images (B,1,side,side), with fixed noise unless a source of noise is given."""
        return self.synthesis(styles, noise)


@dataclass(frozen=True, kw_only=True)
class StyleBatch(Batch):
    """Slices, and all random numbers of a step."""

    z: Tensor  # (2,B,latent): the second from place `crossover` on
    crossover: int
    noise_seed: int


@dataclass
class StyleNetworks(Networks):
    observer: Observer


def architecture_of(params: GeneratorParams, classifier: nn.Module) -> dict[str, Any]:
    names = ("latent", "width", "mapping_layers", "size_in", "channels", "encoder_channels")
    return {name: getattr(params, name) for name in names}


def build(architecture: dict[str, Any]) -> StyleGAN:
    """The generator from what `model.json` keeps as its architecture."""
    return StyleGAN(**architecture)


def build_networks(params: GeneratorParams, classifier: nn.Module) -> StyleNetworks:
    generator = build(architecture_of(params, classifier))
    discriminator = ResidualTrunk(generator.synthesis.side, params.discriminator_channels, 1, minibatch_std=True)
    return StyleNetworks(generator, discriminator, classifier, observer_of(classifier))


def draw(params: GeneratorParams, data: TrainingSlices, generator: Generator) -> StyleBatch:
    """Slices as `balance` says, fresh z, noise, and where the second z takes over."""
    check_side("stylegan", params.size_in, params.channels, data.images)
    batch, codes = batches.draw(params, data, generator), 2 * len(params.channels)
    z = torch.randn(2, params.batch_size, params.latent, generator=generator)
    crossover = int(torch.randint(1, codes, (), generator=generator))
    if float(torch.rand((), generator=generator)) >= params.mixing:
        crossover = codes
    seed = int(torch.randint(2**31, (), generator=generator))
    return StyleBatch(**vars(batch), z=z.to(batch.images.device), crossover=crossover, noise_seed=seed)


def starts_with_slices(params: GeneratorParams, step: int) -> bool:
    """Whether a step's images are made of encoded slices, and not of z."""
    return step % params.sampled_every != params.sampled_every - 1


def generate(networks: Networks, params: GeneratorParams, batch: StyleBatch) -> Tensor:
    """Images (B,1,H,W) of the step, under what the classifier says of its slices."""
    generator, probability = networks.generator, torch.sigmoid(batch.logits)
    noise = Generator(batch.z.device).manual_seed(batch.noise_seed)
    if starts_with_slices(params, batch.step):
        return generator.render(generator.encoded(batch.images, probability), noise)
    first, second = (generator.codes(generator.mapping(z)) for z in batch.z)  # (B,codes,width) each
    codes = torch.cat([first[:, : batch.crossover], second[:, batch.crossover :]], dim=1)
    return generator.render(generator.styles(codes, probability), noise)


def discriminator_step(networks: Networks, params: GeneratorParams, batch: StyleBatch,
                       counterfactual: Tensor) -> Tensor:
    """Logistic loss on slices and on the step's images, with the lazy gradient penalty."""
    return logistic_loss(networks.discriminator, batch.images, counterfactual.detach(), params, batch.step)


def generator_step(networks: StyleNetworks, params: GeneratorParams, batch: StyleBatch,
                   counterfactual: Tensor) -> dict[str, Tensor]:
    """The generator's weighted loss terms by name; those of the reconstruction where the step starts with slices."""
    losses = {"adversarial": params.lambda_adversarial * F.softplus(-networks.discriminator(counterfactual)).mean()}
    if starts_with_slices(params, batch.step):
        losses |= reconstruction_losses(networks, params, batch, counterfactual)
    if params.path_length_weight and batch.step % params.path_length_every == 0:
        weight = params.path_length_weight * params.path_length_every
        losses["path_length"] = weight * path_length_penalty(networks.generator, batch)
    return losses


def reconstruction_losses(networks: StyleNetworks, params: GeneratorParams, batch: StyleBatch,
                          made: Tensor) -> dict[str, Tensor]:
    """Lang et al. 2021, section 3.2, of the slices and what was made of them (B,1,H,W): L_rec in pixels, maps and w,
    and L_cls, the classifier's own answer. The w of the slices is a constant, or both would shrink to nothing."""
    observer, encoder = networks.observer, networks.generator.encoder
    with torch.no_grad():
        view, w = observer(batch.images), encoder(batch.images)
    seen = observer(clamped(made))
    return {
        "perceptual": params.lambda_perceptual * observer.perceptual(seen, view).mean(),
        "pixel": params.lambda_pixel * (made - batch.images).abs().mean(),
        "classifier": params.lambda_classifier * kl_to_target(seen.logits.float(), torch.sigmoid(batch.logits),
                                                              "logits"),
        "code": params.lambda_code * (encoder(made) - w).abs().mean(),
    }


def path_length_penalty(generator: StyleGAN, batch: StyleBatch) -> Tensor:
    """Karras et al. 2020, equation 4: squared distance of ||J_w^T y|| to its running mean, on half of the batch."""
    half = max(1, len(batch.images) // 2)
    source = Generator(batch.z.device).manual_seed(batch.noise_seed + 1)
    with torch.autocast(batch.z.device.type, enabled=False):
        codes = generator.codes(generator.mapping(batch.z[0, :half]))  # (half,codes,width)
        images = generator.render(generator.styles(codes, torch.sigmoid(batch.logits[:half])), source)
        y = torch.randn(images.shape, generator=source, device=images.device) / math.sqrt(images[0].numel())
        gradient, = torch.autograd.grad((images * y).sum(), codes, create_graph=True)
        lengths = (gradient.square().sum(dim=2).mean(dim=1) + 1e-8).sqrt()  # (half,)
        mean = generator.path_length.lerp(lengths.detach().mean(), PATH_DECAY)
        generator.path_length.copy_(mean)
        return (lengths - mean).square().mean()

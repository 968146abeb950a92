"""Inversion (TACE, equation 3): the blobs of which the generator makes a given image; many images at once.

Twenty blobs hold the coarse image. With `noise_side` the renderer's noise maps up to that side are found along with
them, as in Image2StyleGAN++ (Abdal et al. 2020): they hold the fine detail, and no search changes them. Published: 0.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from flipside.classifiers.networks.perceptual import Observer
from flipside.classifiers.networks.view import View
from flipside.core.params import Params
from flipside.generators.codes.blobs import Layout
from flipside.generators.codes.reconstruction import layout_distance
from flipside.methods.latent.blob_generator import BlobGenerator

PLACES = (-0.1, 1.1)  # range of the centres: a blob further out is invisible, and no gradient would bring it back


class InversionParams(Params):
    """Section `inversions.<generator>`. The published values are OCTET's code's; equation 3 prints weights of 1."""

    steps: NonNegativeInt
    """Steps of Adam; 0: the encoder's answer is kept."""
    learning_rate: float = Field(gt=0)
    """Adam's learning rate; the blobs' sizes have twice as much."""
    halve_every: PositiveInt
    """Steps after which the learning rate is halved."""
    noise_side: NonNegativeInt
    """Noise maps up to this side are found too (Image2StyleGAN++, Abdal et al. 2020); 0: none, as published."""
    noise_learning_rate: float = Field(gt=0)
    """Adam's learning rate for the noise maps."""
    lambda_perceptual: float = Field(ge=0)
    """Weight of the perceptual distance between slice and reconstruction."""
    lambda_pixel: float = Field(ge=0)
    """Weight of the mean squared difference between slice and reconstruction."""
    lambda_decision: float = Field(ge=0)
    """Weight of the distance between the classifier's features of slice and reconstruction."""
    lambda_proximity: float = Field(ge=0)
    """Weight of the distance to the encoder's answer."""
    batch_size: PositiveInt
    """Slices that are inverted at once."""


class InversionsParams(Params):
    """Section `inversions`: one block per generator that slices are inverted for."""

    blobgan: InversionParams
    """Inversion to the blobs of BlobGAN."""


def invert(generator: BlobGenerator, encoder: nn.Module, observer: Observer, images: Tensor,
           params: InversionParams) -> tuple[Layout, dict[str, Tensor]]:
    """Blobs of images (B,C,H,W) in [-1,1], and the last value (B,) of each unweighted term of equation 3.

    The losses are summed over the images and Adam works element by element: each image's result is that of its run
    alone, up to rounding.
    """
    with torch.no_grad():
        view = observer(images)  # the images don't change: computed once
        start = generator.decode(encoder(images))
        noise = images.new_zeros(len(images), generator.renderer.noise_numbers(params.noise_side))
    variables = replace(start, noise=noise).map(lambda value: value.clone().requires_grad_(True))
    rates = {name: params.learning_rate * (2 if name == "size" else 1) for name in variables.groups()}
    rates["noise"] = params.noise_learning_rate
    optimizer = torch.optim.Adam([{"params": [value], "lr": rates[name]} for name, value in variables.groups().items()])
    for step in range(params.steps):
        for group, rate in zip(optimizer.param_groups, rates.values(), strict=True):
            group["lr"] = rate * 0.5 ** (step // params.halve_every)
        terms = equation_3(generator, observer, variables, start, images, view)
        loss = sum(getattr(params, f"lambda_{name}") * term for name, term in terms.items())  # (B,)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
        with torch.no_grad():
            variables.xy.clamp_(*PLACES)
    found = variables.map(Tensor.detach)
    with torch.no_grad():
        terms = equation_3(generator, observer, found, start, images, view)
    return found, terms


def equation_3(generator: BlobGenerator, observer: Observer, layout: Layout, start: Layout, images: Tensor,
               view: View) -> dict[str, Tensor]:
    """Its four terms without weights, (B,) each; `view` is that of the images (B,C,H,W)."""
    made = generator.render(layout)
    seen = observer(made)
    return {
        "perceptual": observer.perceptual(seen, view),
        "pixel": (made - images).square().mean(dim=(1, 2, 3)),
        "decision": observer.decision(seen, view),
        "proximity": 6 * layout_distance(layout, start),  # the sum over the six groups
    }

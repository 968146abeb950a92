"""Inversion (TACE, equation 3): the blobs of which the generator makes a given image; many images at once.

Twenty blobs hold the coarse image. With `noise_side` the renderer's noise maps up to that side are found along with
them, as in Image2StyleGAN++ (Abdal et al. 2020): they hold the fine detail, and no search changes them. Published: 0.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from flipside.classifiers.perceptual import Observer, View
from flipside.core.params import Params
from flipside.generators.nn.blobs import Layout
from flipside.generators.nn.encoding import layout_distance

PLACES = (-0.1, 1.1)  # range of the centres: a blob further out is seen nowhere and has no gradient to come back


class InversionParams(Params):
    """Section `inversions.<generator>`. The published values are OCTET's code's; equation 3 prints weights of 1."""

    steps: NonNegativeInt
    learning_rate: float = Field(gt=0)
    """Of the sizes twice as much."""
    halve_every: PositiveInt
    """Steps after which the learning rate is halved."""
    noise_side: NonNegativeInt
    """Noise maps up to this side are found too (Image2StyleGAN++, Abdal et al. 2020)."""
    noise_learning_rate: float = Field(gt=0)
    lambda_perceptual: float = Field(ge=0)
    lambda_pixel: float = Field(ge=0)
    lambda_decision: float = Field(ge=0)
    lambda_proximity: float = Field(ge=0)
    """To the encoder's answer."""
    batch_size: PositiveInt
    """Images inverted at once."""


class InversionsParams(Params):
    """Section `inversions`."""

    blobgan: InversionParams


def invert(generator: nn.Module, encoder: nn.Module, observer: Observer, images: Tensor,
           params: InversionParams) -> tuple[Layout, dict[str, Tensor]]:
    """Blobs of images (B,1,H,W) in [-1,1], and the last value (B,) of each unweighted term of equation 3.

    The losses are summed over the images and Adam works element by element: each image's result is that of its run
    alone, up to rounding.
    """
    with torch.no_grad():
        view = observer(images)  # the images don't change: seen once
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


def equation_3(generator: nn.Module, observer: Observer, layout: Layout, start: Layout, images: Tensor,
               view: View) -> dict[str, Tensor]:
    """Its four terms without weights, (B,) each; `view` is that of the images (B,1,H,W)."""
    made = generator.render(layout)
    seen = observer(made)
    return {
        "perceptual": observer.perceptual(seen, view),
        "pixel": (made - images).square().mean(dim=(1, 2, 3)),
        "decision": observer.decision(seen, view),
        "proximity": 6 * layout_distance(layout, start),  # the sum over the six groups
    }

"""The encoder of a blob generator: images -> h, which the generator's layout network decodes (TACE, equations 1, 2)."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from flipside.classifiers.backbones import Classifier
from flipside.classifiers.perceptual import Observer, View
from flipside.classifiers.pretrained import ALEXNET, find_lpips
from flipside.core.checkpoint import Scratch
from flipside.core.params import Params
from flipside.core.runtime import generator_for
from flipside.generators.nn.blobs import Layout
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.training.batches import TrainingSlices
from flipside.generators.training.state import Course, update

MEAN_OF, MEAN_SEED = 10_000, 5  # z over which the mean h is taken


class ReconstructionWeights(Params):
    """Lambdas of one half of equation 2; the published values are OCTET's (TACE states none)."""

    perceptual: float = Field(ge=0)
    """LPIPS, or the classifier's maps where its weights are absent."""
    pixel: float = Field(ge=0)
    decision: float = Field(ge=0)
    """The classifier's features."""


class Phase(Params):
    """One phase of training with an Adam of its own."""

    steps: NonNegativeInt
    learning_rate: float = Field(gt=0)
    halve_every: PositiveInt
    """Steps after which the learning rate is halved."""
    batch_size: PositiveInt


class EncoderParams(Params):
    """Section `encoders.<generator>`."""

    pretrain: Phase
    """Equation 1; an encoder that learnt with its generator needs none."""
    finetune: Phase
    """Equation 2."""
    real: ReconstructionWeights
    generated: ReconstructionWeights
    lambda_latent: float = Field(ge=0)
    """Of the generated images' blobs."""
    pixel_loss: Literal["l1", "l2"]
    """TACE: l2; OCTET's released script: l1."""
    truncation: float = Field(ge=0, lt=1)
    """Share of the way from each h to their mean: less variety, better images."""


class EncodersParams(Params):
    """Section `encoders`."""

    blobgan: EncoderParams


def perceptual_name() -> str:
    """What the perceptual terms are on this machine: `lpips` where its weights are at hand, else `perceptual_clf`."""
    return "perceptual_clf" if ALEXNET.absence() else "lpips"


def observer_of(classifier: Classifier) -> Observer:
    """The classifier as the losses see it, with LPIPS where its weights are at hand."""
    tensors = itertools.chain(classifier.parameters(), classifier.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return Observer(classifier, find_lpips(device))


def build_encoder(architecture: dict[str, Any]) -> ResidualTrunk:
    """The encoder that fits a generator, from what the generator's `model.json` keeps as its architecture."""
    side = architecture["size_in"] * 2 ** (len(architecture["channels"]) - 1)
    return ResidualTrunk(side, architecture["encoder_channels"], architecture["layout_width"], minibatch_std=False)


def reconstruction_terms(weights: ReconstructionWeights, pixel_loss: str, observer: Observer, images: Tensor,
                         others: Tensor, view: View) -> dict[str, Tensor]:
    """Weighted terms of equation 2 between images, whose view is given, and reconstructions, both (B,1,H,W)."""
    seen, difference = observer(others), others - images
    pixel = difference.abs().mean() if pixel_loss == "l1" else difference.square().mean()
    return {
        "perceptual": weights.perceptual * observer.perceptual(seen, view).mean(),
        "pixel": weights.pixel * pixel,
        "decision": weights.decision * observer.decision(seen, view).mean(),
    }


def layout_distance(one: Layout, other: Layout) -> Tensor:
    """Mean over OCTET's six groups (x, y, size, shape, feat, style) of their mean squared difference, (B,)."""
    errors = {name: (value - getattr(other, name)).square() for name, value in one.groups().items() if name != "noise"}
    x, y = errors.pop("xy").unbind(dim=-1)  # (B,K) each
    groups = [x, y, *errors.values()]
    return torch.stack([group.flatten(1).mean(dim=1) for group in groups]).mean(dim=0)


@dataclass
class EncoderTraining:
    """What the two phases work on; `generator` and the observer's networks are frozen."""

    encoder: nn.Module
    generator: nn.Module  # a blob generator: layout, decode and render
    observer: Observer
    params: EncoderParams

    @functools.cached_property
    def mean_h(self) -> Tensor:
        """Mean of h over random z, (1,layout_width)."""
        z = torch.randn(MEAN_OF, self.generator.latent, generator=generator_for(MEAN_SEED))
        device = next(self.generator.parameters()).device
        return self.generator.layout(z.to(device)).mean(dim=0, keepdim=True)

    @torch.no_grad()
    def layout(self, z: Tensor) -> Tensor:
        """h (B,layout_width) of z (B,latent) from which images for the encoder are made."""
        h = self.generator.layout(z)
        return h.lerp(self.mean_h.to(h.dtype), self.params.truncation) if self.params.truncation else h

    def pretrain_terms(self, images: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Equation 1: h against the encoder's answer to the image made of it."""
        with torch.no_grad():
            h = self.layout(z)
            generated = self.generator.render(self.generator.decode(h))
        return {"h": (self.encoder(generated).float() - h).square().mean()}

    def finetune_terms(self, images: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Equation 2: images and generated images against what is made of their code, and the latter's blobs."""
        params, terms = self.params, {}
        with torch.no_grad():
            layout = self.generator.decode(self.layout(z))
            generated = self.generator.render(layout)
        for name, weights, originals in (("real", params.real, images), ("generated", params.generated, generated)):
            with torch.no_grad():
                view = self.observer(originals)
            found = self.generator.decode(self.encoder(originals))
            made = self.generator.render(found)
            parts = reconstruction_terms(weights, params.pixel_loss, self.observer, originals, made, view)
            terms |= {f"{name}_{part}": value for part, value in parts.items()}
        terms["latent"] = params.lambda_latent * layout_distance(found, layout).mean()
        return terms


def train_encoder(training: EncoderTraining, data: TrainingSlices, seed: int,
                  scratch: Scratch) -> tuple[nn.Module, list[dict[str, float]], float]:
    """Both phases, one after the other: the encoder, frozen, its learning curves, and the seconds of the steps."""
    params, runtime = training.params, data.runtime
    encoder = runtime.place(training.encoder).train()
    phases = [(params.pretrain, training.pretrain_terms, 0),
              (params.finetune, training.finetune_terms, params.pretrain.steps)]
    total = params.pretrain.steps + params.finetune.steps
    course = Course(scratch, total)
    course.restore(encoder=encoder)
    for phase, terms_of, offset in phases:
        if course.step >= offset + phase.steps:
            continue
        optimizer = torch.optim.Adam(encoder.parameters(), phase.learning_rate)
        if course.step > offset:  # of an unfinished run, in this phase
            course.restore(optimizer=optimizer)
        for step in range(course.step - offset, phase.steps):
            optimizer.param_groups[0]["lr"] = phase.learning_rate * 0.5 ** (step // phase.halve_every)
            generator = generator_for(seed, offset + step)
            rows = torch.randint(len(data.images), (phase.batch_size,), generator=generator)
            batch = data.batch(rows, generator)
            z = torch.randn(phase.batch_size, training.generator.latent, generator=generator).to(runtime.device)
            with runtime.autocast():
                terms = terms_of(batch.images, z)
            update(optimizer, sum(terms.values()))
            course.record(terms, encoder=encoder, optimizer=optimizer)
    return encoder.eval().requires_grad_(False), course.history, course.seconds

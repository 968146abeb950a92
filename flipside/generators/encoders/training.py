"""Training of a blob generator's encoder: images -> h, which the generator's layout network decodes (TACE)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, RootModel
from torch import Tensor, nn

from flipside.classifiers.networks.perceptual import Observer
from flipside.core import ranks
from flipside.core.checkpoint import Scratch
from flipside.core.params import Params
from flipside.core.runtime import generator_for
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.state import Trained, TrainingState, update
from flipside.generators.codes.reconstruction import (
    PixelLoss,
    ReconstructionWeights,
    layout_distance,
    reconstruction_terms,
)
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.generators.nn.blob_network import BlobNetwork
from flipside.generators.nn.stylegan_layers import ResidualTrunk

MEAN_OF, MEAN_SEED = 10_000, 5  # z over which the mean h is taken


class Phase(Params):
    """One phase of training, with an Adam optimiser of its own."""

    steps: NonNegativeInt
    """Training steps; 0: the phase is left out."""
    learning_rate: float = Field(gt=0)
    """Adam's learning rate at the start."""
    halve_every: PositiveInt
    """Steps after which the learning rate is halved."""
    batch_size: PositiveInt
    """Slices in a training step."""


class EncoderParams(Params):
    """Section `encoders.<generator>`."""

    pretrain: Phase
    """First phase, TACE's equation 1: h of generated images. An encoder trained with its generator needs none."""
    finetune: Phase
    """Second phase, TACE's equation 2: reconstruction of slices and of generated images."""
    real: ReconstructionWeights
    """Weights of the reconstruction of slices."""
    generated: ReconstructionWeights
    """Weights of the reconstruction of generated images."""
    lambda_latent: float = Field(ge=0)
    """Weight of the distance between the blobs of generated images and those found in them."""
    pixel_loss: PixelLoss
    """Difference in pixels: absolute (l1, OCTET's released script) or squared (l2, TACE)."""
    truncation: float = Field(ge=0, lt=1)
    """Share of the way from each h to their mean, in generated images: less variety, better images."""
    seed_offset: int = Field(ge=0)
    """Added to `seed`: repeats the training with other random numbers."""


class EncodersParams(RootModel[dict[str, EncoderParams]]):
    """Section `encoders`: a block for each generator whose encoder is trained after it."""


@dataclass
class EncoderTraining:
    """What the two phases work on; `generator` and the observer's networks are frozen."""

    encoder: ResidualTrunk
    generator: BlobNetwork
    observer: Observer
    params: EncoderParams

    @classmethod
    def of(cls, generator: nn.Module, architecture: dict[str, Any], observer: Observer,
           params: EncoderParams) -> EncoderTraining:
        """For a generator's network: goes on from the encoder trained with it, where there is one.

        Raises ValueError for a network that isn't made of blobs.
        """
        if not isinstance(generator, BlobNetwork):
            raise ValueError(f"an encoder is trained for a generator with blobs, found {type(generator).__name__}: "
                             "take its block out of `encoders` in params.yaml")
        encoder = build_encoder(architecture)
        if generator.encoder is not None:
            encoder.load_state_dict(generator.encoder.state_dict())
        return cls(encoder, generator, observer, params)

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
        """Equation 2: slices and generated images against their reconstructions, and the generated images' blobs."""
        params = self.params
        with torch.no_grad():
            layout = self.generator.decode(self.layout(z))
            generated = self.generator.render(layout)
        terms: dict[str, Tensor] = {}
        for name, weights, originals in (("real", params.real, images), ("generated", params.generated, generated)):
            with torch.no_grad():
                view = self.observer(originals)
            found = self.generator.decode(self.encoder(originals))
            made = self.generator.render(found)
            parts = reconstruction_terms(weights, params.pixel_loss, self.observer, originals, made, view)
            terms |= {f"{name}_{part}": value for part, value in parts.items()}
        terms["latent"] = params.lambda_latent * layout_distance(found, layout).mean()
        return terms


def train_encoder(training: EncoderTraining, data: TrainingSlices, seed: int, scratch: Scratch) -> Trained:
    """Both phases, one after the other; what is seen at a step depends on seed and step alone."""
    params, runtime = training.params, data.runtime
    encoder = runtime.place(training.encoder).train()
    phases = [(params.pretrain, training.pretrain_terms, 0),
              (params.finetune, training.finetune_terms, params.pretrain.steps)]
    state = TrainingState(scratch, params.pretrain.steps + params.finetune.steps)
    state.restore(encoder=encoder)
    for phase, terms_of, offset in phases:
        if state.step >= offset + phase.steps:
            continue
        optimizer = torch.optim.Adam(encoder.parameters(), phase.learning_rate, fused=True)
        if state.step > offset:  # resumed in this phase
            state.restore(optimizer=optimizer)
        for step in range(state.step - offset, phase.steps):
            optimizer.param_groups[0]["lr"] = phase.learning_rate * 0.5 ** (step // phase.halve_every)
            generator = generator_for(seed, offset + step)
            rows = torch.randint(len(data.images), (phase.batch_size,), generator=generator)
            images = data.batch(rows, generator).images
            z = torch.randn(phase.batch_size, training.generator.latent, generator=generator).to(runtime.device)
            with runtime.autocast():
                terms = terms_of(ranks.share(images), ranks.share(z))
            update(optimizer, *terms.values())
            state.record(terms, encoder=encoder, optimizer=optimizer)
    return state.finish(encoder)

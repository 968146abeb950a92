"""What BlobGAN and StyleGAN2 share in training: logistic loss, lazy R1, and Adam corrected for lazy penalties.

Karras et al. 2020 (StyleGAN2), section 3.1 and appendix B.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from flipside.classifiers.networks.perceptual import Observer
from flipside.generators.base.data import Batch
from flipside.generators.training.adversarial import AdversarialGenerator, AdversarialParams


class LogisticParams(AdversarialParams):
    """Adversarial training with the logistic loss."""

    schedule: Literal["constant", "cosine", "halving"]
    """Of the learning rate. cosine: down to 0 at the last step. halving: halved every `halve_every` steps."""
    halve_every: PositiveInt
    """Steps after which `schedule: halving` halves the learning rate."""
    epsilon: float = Field(gt=0)
    """Adam's epsilon."""
    r1_weight: float = Field(ge=0)
    """Weight of the gradient penalty R1: gamma / 2."""
    r1_every: PositiveInt
    """R1 is taken at every n-th step, with n times the weight."""

    def learning_rate_at(self, step: int) -> float:
        """As for every generator, or halved repeatedly (TACE, section 4.2)."""
        if self.schedule == "halving":
            return self.learning_rate * 0.5 ** (step // self.halve_every)
        return super().learning_rate_at(step)

    def penalty_every(self, network: str) -> int:
        """Steps from one lazy penalty on a network to the next; 0 where it has none."""
        return self.r1_every if network == "discriminator" and self.r1_weight else 0

    def adam(self, network: str) -> dict[str, Any]:
        """Adam's options; learning rate and betas of a network with a lazy penalty are corrected for it."""
        every = self.penalty_every(network)
        share = every / (every + 1) if every else 1.0
        betas = (self.betas[0] ** share, self.betas[1] ** share)
        return {"lr": self.learning_rate * share, "betas": betas, "eps": self.epsilon}


P = TypeVar("P", bound=LogisticParams)
B = TypeVar("B", bound=Batch)


class LogisticGenerator(AdversarialGenerator[P, B], Generic[P, B]):
    """A generator with the logistic loss whose reconstructions an `Observer` compares."""

    observer: Observer

    def details(self) -> dict[str, str]:
        """What the perceptual terms compared: `lpips` or `perceptual_clf`."""
        return {"perceptual": self.observer.name}

    def logistic_loss(self, images: Tensor, fake: Tensor, step: int) -> Tensor:
        """The discriminator's, on slices and generated images (B,C,H,W), with the lazy penalty where the step has it.

        `step` counts the discriminator's steps from 0.
        """
        params, discriminator = self.params, self.discriminator
        loss = F.softplus(-discriminator(images)).mean() + F.softplus(discriminator(fake)).mean()
        if params.r1_weight and step % params.r1_every == 0:
            loss = loss + params.r1_weight * params.r1_every * gradient_penalty(discriminator, images)
        return loss


def check_side(generator: str, size_in: int, channels: list[int], images: Tensor) -> None:
    """Refuse slices (N,H,W) or (N,C,H,W) of another size than the generator makes, which are squares."""
    side = size_in * 2 ** (len(channels) - 1)
    if images.shape[-2:] != (side, side):
        raise ValueError(f"generators.{generator}: `size_in` {size_in} and {len(channels)} `channels` make images of "
                         f"{side} x {side} pixels, the slices have {tuple(images.shape[-2:])}: double the size once "
                         "per further entry of `channels`, or change `image_size`")


def gradient_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018): mean over images (B,C,H,W) of the squared norm of the logit's gradient."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_(True)
        gradient, = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3)).mean()

"""The adversarial training loop: seeded batches, alternating steps, EMA, resumable state. No method's own maths."""

from __future__ import annotations

import copy
import dataclasses
from types import ModuleType

import torch
from torch import Tensor, nn

from flipside.core.checkpoint import Scratch
from flipside.core.runtime import generator_for
from flipside.generators.training.batches import TrainingParams, TrainingSlices
from flipside.generators.training.state import Course, update


def train_adversarial(method: ModuleType, params: TrainingParams, data: TrainingSlices, seed: int,
                      scratch: Scratch) -> tuple[nn.Module, list[dict[str, float]], float]:
    """Train a method's generator and return it (its EMA where asked for), frozen, the learning curves and the seconds.

    `method` offers build_networks, draw, generate, discriminator_step and generator_step. What is seen at a step
    depends on seed and step alone.
    """
    runtime = data.runtime
    networks = method.build_networks(params, data.classifier)
    generator = runtime.place(networks.generator).train()
    discriminator = runtime.place(networks.discriminator).train()
    average = copy.deepcopy(generator).requires_grad_(False) if params.ema_decay else None
    fused = runtime.device.type == "cuda"
    optimizers = {
        name: torch.optim.Adam(network.parameters(), **params.adam(name), fused=fused)
        for name, network in (("generator", generator), ("discriminator", discriminator))
    }
    parts = {"generator": generator, "discriminator": discriminator, **({"average": average} if average else {}),
             **{f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}}
    course = Course(scratch, params.steps)
    course.restore(**parts)

    losses: dict[str, Tensor] = {}
    for step in range(course.step, params.steps):
        batch = dataclasses.replace(method.draw(params, data, generator_for(seed, step)), step=step)
        for name, optimizer in optimizers.items():
            share = params.learning_rate_at(step) / params.learning_rate
            optimizer.param_groups[0]["lr"] = params.adam(name)["lr"] * share
        updates_generator = step % params.generator_every == params.generator_every - 1

        with torch.set_grad_enabled(updates_generator), runtime.autocast():
            # The generator's batch-norm statistics follow every step, its weights don't.
            counterfactual = method.generate(networks, params, batch)
        discriminator.requires_grad_(True)
        with runtime.autocast():
            loss = method.discriminator_step(networks, params, batch, counterfactual.float())
        if loss is not None:  # a step in which the discriminator has no part
            update(optimizers["discriminator"], loss)
            losses["discriminator"] = loss.detach()

        if updates_generator:
            discriminator.requires_grad_(False)
            with runtime.autocast():
                terms = method.generator_step(networks, params, batch, counterfactual.float())
            update(optimizers["generator"], sum(terms.values()))
            losses |= {name: term.detach() for name, term in terms.items()}
            if average is not None:
                _follow(average, generator, params.ema_decay)

        course.record(losses, **parts)
    final = average if average is not None else generator
    return final.eval().requires_grad_(False), course.history, course.seconds


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module; buffers (batch-norm statistics) are copied."""
    for kept, new in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(new)

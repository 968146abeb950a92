"""The adversarial training loop: seeded batches, alternating steps, EMA, resumable state. No method's own maths."""

from __future__ import annotations

import copy
import dataclasses
import time
from types import ModuleType

import torch
from torch import Tensor, nn

from stages.common.checkpoint import Scratch, check_finite
from stages.common.progress import Ticker
from stages.common.runtime import generator_for
from stages.generate.batches import TrainingParams, TrainingSlices

SAVE_EVERY_SECONDS = 60.0
RECORD_EVERY = 25  # steps between rows of the learning curves


def train_adversarial(method: ModuleType, params: TrainingParams, data: TrainingSlices, seed: int,
                      scratch: Scratch) -> tuple[nn.Module, list[dict[str, float]], float]:
    """Train a method's generator and return it (its EMA where asked for), frozen, the learning curves and the seconds.

    The seconds are those of the steps that count: of a killed training, those up to the state that it went on from.
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
    modules = {"generator": generator, "discriminator": discriminator} | ({"average": average} if average else {})
    history: list[dict[str, float]] = []
    first_step, seconds_before = 0, 0.0
    if state := scratch.load():
        for name, module in modules.items():
            module.load_state_dict(state[name])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state[f"{name}_optimizer"])
        history, first_step, seconds_before = state["history"], state["step"], state["seconds"]

    ticker = Ticker(f"train {scratch.folder.name}", params.steps, first_step)
    started = saved = time.monotonic()
    losses, unchecked = {}, []
    for step in range(first_step, params.steps):
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

        done = step + 1
        unchecked.append((done, dict(losses)))
        if done % RECORD_EVERY == 0 or done == params.steps:
            for at, terms in unchecked:  # not at every step: a GPU would have to be waited for
                check_finite(terms, at, scratch)
            unchecked.clear()
            values = {name: float(value) for name, value in losses.items()}
            history.append({"step": done, **values})
            ticker.tick(done, **values)
        if time.monotonic() - saved > SAVE_EVERY_SECONDS and done % RECORD_EVERY == 0:
            scratch.save({name: module.state_dict() for name, module in modules.items()}
                         | {f"{name}_optimizer": optimizer.state_dict() for name, optimizer in optimizers.items()}
                         | {"history": history, "step": done, "seconds": seconds_before + time.monotonic() - started})
            saved = time.monotonic()
    final = average if average is not None else generator
    return final.eval().requires_grad_(False), history, seconds_before + time.monotonic() - started


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the gradient of a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * module; buffers (batch-norm statistics) are copied."""
    for kept, new in zip(average.parameters(), module.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(new)

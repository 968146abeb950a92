"""The search for a counterfactual among blobs, by Adam on many images at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.generators.codes.blobs import Layout
from flipside.methods.base.parameters import MethodParams
from flipside.methods.latent.inversion import PLACES

GROUPS = {
    "style": ("style",), "spatial": ("xy", "size", "shape"), "both": ("xy", "size", "shape", "style"),
    "all": ("xy", "size", "shape", "feat", "style"),
}
SLOWER = 8  # all groups but the sizes have their learning rate divided by this (OCTET's code)


class SearchParams(MethodParams):
    """Of a search among blobs. OCTET's code has steps 100, learning_rate 0.08, mode style, stop none."""

    mode: Literal["style", "spatial", "both", "all"]
    """What of the blobs may change: style, spatial (place, size and shape), both, or all (both and feat)."""
    steps: PositiveInt
    """Steps of the search."""
    learning_rate: float = Field(gt=0)
    """Adam's learning rate for the blobs' sizes; all else has an eighth of it."""
    proximity: float = Field(ge=0)
    """Weight (lambda) of the mean absolute change of the blobs in the loss."""
    stop: Literal["margin", "none"]
    """margin: an image stops once it is called healthy by the margin. none: all steps are made and the last image
    counts."""
    margin: float = Field(ge=0, lt=0.5)
    """How far past one half, in probability, an image has to be to be called healthy by the margin."""

    def unfinished(self, logits: Tensor) -> Tensor:
        """Which images (B,) with these logits (B,) are to be searched: those not yet called healthy by the margin."""
        if self.stop == "none":
            return torch.ones_like(logits, dtype=torch.bool)
        return -logits < math.log((0.5 + self.margin) / (0.5 - self.margin))


@dataclass(frozen=True)
class Trial:
    """An objective's answer for the blobs of B images.

    An objective is asked for `(layout, rows)`: the blobs of the images at the positions `rows` (B,), which are those
    that are still searched.
    """

    loss: Tensor  # (B,)
    logits: Tensor  # (B,) the classifier's, of the image that would be the counterfactual
    distance: Tensor  # (B,) what is kept small among images that are called healthy


@dataclass(frozen=True)
class Found:
    layout: Layout  # kept of each image
    steps: Tensor  # (B,) updates made before it was kept
    healthy: Tensor  # (B,) bool: called healthy


def measure_change(layout: Layout, start: Layout, mode: str) -> Tensor:
    """Mean absolute change (B,) of each group that may change, averaged over the groups."""
    return torch.stack([(getattr(layout, name) - getattr(start, name)).abs().flatten(1).mean(dim=1)
                        for name in GROUPS[mode]]).mean(dim=0)


def healthy_loss(logits: Tensor) -> Tensor:
    """Cross entropy (B,) of logits (B,) of abnormal with the target "healthy"."""
    return F.softplus(logits)


def search(start: Layout, objective: Callable[[Layout, Tensor], Trial], params: SearchParams,
           begin: Layout | None = None, free: Tensor | None = None,
           keep: Literal["best", "last_healthy"] = "best") -> Found:
    """Minimise the objective from `begin` (default: `start`) until the image is called healthy by the margin.

    Only blobs that are `free` (B,K+1; default: all) leave `start`. Kept is, image by image, the one past the margin,
    else the closest that is called healthy, else the last; with `stop: none` always the last; with `last_healthy` all
    steps are made and the last that is called healthy is kept. An image that has stopped stays as it is, and costs
    nothing, while the others go on: each result is that of a search for that image alone, up to rounding.
    """
    variables = (begin or start).map(lambda value: value.detach().clone())
    for name in GROUPS[params.mode]:
        getattr(variables, name).requires_grad_(True)
    optimizer = torch.optim.Adam([
        {"params": [getattr(variables, name)], "lr": params.learning_rate / (1 if name == "size" else SLOWER)}
        for name in GROUPS[params.mode]])
    count, device = len(start.xy), start.xy.device
    kept, kept_distance = start.map(torch.clone), torch.full((count,), torch.inf, device=device)
    kept_rank, steps = (torch.zeros(count, dtype=torch.long, device=device) for _ in range(2))
    stopped = torch.zeros(count, dtype=torch.bool, device=device)
    for step in range(params.steps + 1):
        rows = (~stopped).nonzero().squeeze(1)
        current = (variables if free is None else variables.where(free, start)).rows(rows)
        trial = objective(current, rows)
        with torch.no_grad():
            rank = (trial.logits < 0).long()  # 0: called abnormal, 1: healthy, 2: healthy by the margin
            if keep == "last_healthy":
                better = rank >= kept_rank[rows]
            elif params.stop == "none":
                better = torch.ones_like(rank, dtype=torch.bool)
            else:
                rank = rank + ~params.unfinished(trial.logits)
                closer = (rank == 0) | (trial.distance < kept_distance[rows])
                better = (rank > kept_rank[rows]) | (rank == kept_rank[rows]) & closer
                stopped[rows] = rank == 2
            chosen = rows[better]
            for name, value in kept.groups().items():
                value[chosen] = getattr(current, name)[better]
            kept_rank[chosen], kept_distance[chosen], steps[chosen] = rank[better], trial.distance[better], step
        if step == params.steps or stopped.all():
            break
        optimizer.zero_grad(set_to_none=True)
        trial.loss.sum().backward()
        optimizer.step()
        with torch.no_grad():
            variables.xy.clamp_(*PLACES)
    return Found(kept, steps, kept_rank > 0)


def search_all_blobs(show: Callable[[Layout, Tensor], Tensor], classifier: Classifier, start: Layout,
                     params: SearchParams) -> Found:
    """Blobs near `start` whose image the classifier calls healthy: OCTET's objective (Zemni et al. 2023), on logits.

    show: the counterfactuals (R,C,H,W) of the blobs of images `rows` (R,); their decision is the one that is flipped.
    """
    def objective(layout: Layout, rows: Tensor) -> Trial:
        logits = classifier(show(layout, rows)).float()
        distance = measure_change(layout, start.rows(rows), params.mode)
        return Trial(healthy_loss(logits) + params.proximity * distance, logits, distance)

    return search(start, objective, params)

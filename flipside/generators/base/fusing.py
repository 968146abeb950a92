"""How an image x and a perturbation G become one image in [-1,1]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Fuse = Literal["tanh", "clamp", "none"]


def fused(total: Tensor, fuse: Fuse) -> Tensor:
    """A sum x + G (or G alone) brought into [-1,1]."""
    return clamped(total) if fuse == "clamp" else torch.tanh(total)


def clamped(total: Tensor) -> Tensor:
    """Clamped to [-1,1], with the gradient passed straight through: without one a pixel that left the range would never
    come back."""
    return total + (total.clamp(-1, 1) - total).detach()

"""Trained segmenters: a student, and where it learned from pseudo-masks the mask network that taught it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flipside.core.checkpoint import load_weights, read_description
from flipside.core.runtime import Runtime
from flipside.generators.base.loading import find_generator
from flipside.generators.nn.unet import UNet


def build_segmenter(architecture: dict[str, Any]) -> nn.ModuleDict:
    """The untrained networks that a segmenter's `model.json` describes.

    `student`: images (B,C,H,W) in [-1,1] -> logits (B,1,H,W). `teacher`, if there is one: a `MaskNetwork`.
    """
    parts: dict[str, nn.Module] = {"student": UNet(**architecture["student"])}
    if teacher := architecture.get("teacher"):
        parts["teacher"] = find_generator(teacher["generator"]).build(teacher["architecture"])
    return nn.ModuleDict(parts)


def load_segmenter(path: Path | str, runtime: Runtime) -> nn.ModuleDict:
    """The networks that a stage left in `path`: frozen, in eval mode, on the runtime's device."""
    return runtime.place(load_weights(path, build_segmenter(read_description(path)["architecture"])))


def mean_over_flip(probability: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Probabilities (B,1,H,W) of images (B,C,H,W), averaged with those of the images with left and right exchanged."""
    return (probability(images) + probability(images.flip(3)).flip(3)) / 2


def lesion_probability(student: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    """A student's probability (B,1,H,W) float32 in [0,1] that a pixel of images (B,C,H,W) in [-1,1] is lesion."""
    with runtime.autocast():
        return mean_over_flip(lambda seen: torch.sigmoid(student(seen).float()), images)

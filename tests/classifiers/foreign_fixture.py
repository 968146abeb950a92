"""Tiny classifiers of a user's: a timm ConvNeXt and ViT, a torchvision ResNet, a TorchScript file, a Python module."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import nn

from flipside.classifiers.importing import ForeignParams
from flipside.classifiers.networks.foreign import ForeignClassifier, build_network
from flipside.core.store import INDEX_COLUMNS, write_store
from stages import train_classifier

FOLDER, SIZE = Path("data/foreign"), 32
IMAGENET = {"channels": 3, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
MODULE = """
from torch import nn


def build(width):
    return nn.Sequential(nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))
"""
BLOCKS: dict[str, dict[str, Any]] = {
    "convnext": IMAGENET | {
        "source": "timm", "checkpoint": "convnext.safetensors", "architecture": "convnext_atto", "classes": 2,
        "options": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, "input_size": 64},
    "vit": IMAGENET | {
        "source": "timm", "checkpoint": "vit.pt", "architecture": "vit_tiny_patch16_224", "classes": 2,
        "options": {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}},
    "resnet": IMAGENET | {
        "source": "torchvision", "checkpoint": "resnet.pt", "architecture": "resnet18", "classes": 3, "input_size": 48},
    "torchscript": {"source": "torchscript", "checkpoint": "script.pt", "classes": 2, "channels": 1, "mean": [0.5],
                    "std": [0.5]},
    "python": {"source": "python", "checkpoint": "net.pt", "module": "net.py", "architecture": "build", "classes": 1,
               "options": {"width": 8}, "channels": 1, "mean": [0.0], "std": [1.0]},
}


def write_slices(path: str = "data/slices", count: int = 24) -> None:
    """A store of slices of noise, bright squares in half of them, in all splits."""
    labels = np.arange(count) % 2
    images = np.random.default_rng(0).uniform(-0.8, -0.4, (count, SIZE, SIZE))
    images[labels == 1, 8:20, 6:18] = 0.8
    index = pd.DataFrame({column: [0] * count for column in INDEX_COLUMNS}).assign(
        slice_id=[f"s{n}" for n in range(count)], patient_id=[f"p{n // 4}" for n in range(count)], label=labels,
        split=np.repeat(["train", "val", "test"], count // 3))
    write_store(path, images.astype(np.float16), np.ones(images.shape, np.uint8), index)


def write_classifier(kind: str) -> dict[str, Any]:
    """A block of `classifiers` whose files are in `FOLDER`: random weights, the class that tells the slices of
    data/slices apart best chosen, and its logit shifted so that half of them are called abnormal."""
    block = {"pretraining": str(FOLDER)} | BLOCKS[kind]
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "net.py").write_text(MODULE)
    torch.manual_seed(1)
    form = ForeignParams(**block, class_index="binary" if block["classes"] == 1 else 0).form(1)
    if kind == "torchscript":
        network: nn.Module = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                           nn.Linear(4, 2))
    else:
        network = build_network(form, FOLDER / "net.py" if kind == "python" else None)
    for parameter in network.eval().requires_grad_(False).parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    images = torch.as_tensor(np.load("data/slices/images.npy")).float()[:, None]
    answers = ForeignClassifier(network, form).answers(images)
    index, meaning = best_class(answers)
    bias = list(network.parameters())[-1]
    bias[0 if index == "binary" else index] -= ForeignClassifier.one_against_rest(answers, index, "abnormal").median()
    save(network, FOLDER / block["checkpoint"])
    return block | {"class_index": index, "class_is": meaning}


def save(network: nn.Module, file: Path) -> None:
    """As the kind of file that its name in `BLOCKS` stands for."""
    if file.name == "script.pt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch calls its scripts deprecated
            torch.jit.save(torch.jit.trace(network, torch.zeros(2, 1, SIZE, SIZE)), file)
    elif file.suffix == ".safetensors":
        save_file(network.state_dict(), file)
    else:  # as training scripts do: nested, and with DataParallel's prefix
        state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, file)


def best_class(answers: torch.Tensor) -> tuple[Any, Any]:
    """The class of (N,K), and what it means, by which bright squares are told apart best."""
    indices: list[Any] = ["binary"] if answers.shape[1] == 1 else list(range(answers.shape[1]))
    choices = [(index, meaning) for index in indices for meaning in ("abnormal", "healthy")]
    labels = np.arange(len(answers)) % 2
    return max(choices, key=lambda one: roc_auc_score(labels, ForeignClassifier.one_against_rest(answers, *one)))


def run_stage(block: dict[str, Any], monkeypatch: Any, methods: dict[str, Any] | None = None,
              role: str = "classifier") -> None:
    """The stage train_classifier with this block."""
    Path("params.yaml").write_text(yaml.safe_dump({
        "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1}, "classifiers": {role: block},
        "methods": methods or {}}))
    monkeypatch.setattr(sys, "argv", ["stage", "--role", role])
    train_classifier.main()
    torch.set_flush_denormal(False)  # which a stage switches on for its process


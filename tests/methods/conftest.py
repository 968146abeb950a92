"""A toy classifier that sees bright blobs, and images with one planted: what the methods are tested on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flipside.classifiers.networks.view import View, maps_by_size
from flipside.core.checkpoint import Scratch, read_description, save_model
from flipside.core.params import load_section
from flipside.core.paths import CLASSIFIER, SLICES
from flipside.core.runtime import Runtime, RuntimeParams, generator_for, seed_everything
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import find_generator, load_generator
from flipside.generators.codes.reconstruction import observer_of
from flipside.methods.base.method import Context
from flipside.methods.latent.attributes import (
    AttributeParams,
    Extremes,
    encode_slices,
    measure_all_effects,
    select_moves,
)
from flipside.methods.latent.inversion import InversionParams, invert
from flipside.methods.latent.latents import write_latents
from flipside.segmenters.labels import Labels, PseudoMaskParams, pseudo_labels
from flipside.segmenters.networks import build_segmenter
from flipside.segmenters.training import SegmenterParams, train_segmenter
from tests.shared import made_once

PARAMS = Path(__file__).parents[2] / "params.yaml"
TOY_GENERATOR = {
    "channels": [8, 16, 16], "discriminator_channels": [8, 16], "discriminator_last_block": False, "skips": 2,
    "generator_every": 2, "learning_rate": 2e-3, "batch_size": 16, "steps": 80, "ema_decay": 0.0,
}
TOY_GENERATORS = {"impact": {
    "channels": [8, 16, 16], "hole_size": 4, "max_holes": 12, "learning_rate": 5e-3, "batch_size": 16, "steps": 120,
    "fine_tuning_steps": 20,
}, "cx_gan": {
    "channels": [8, 16, 32], "discriminator_channels": [16, 32], "learning_rate": 2e-3, "batch_size": 8, "steps": 150,
}, "va_gan": {
    "channels": [8, 16, 32], "discriminator_channels": [16, 32], "learning_rate": 2e-3, "batch_size": 8, "steps": 300,
    "lambda_map": 10.0,
}, "flip_mask": {
    "channels": [8, 16, 16], "discriminator_channels": [16, 32], "learning_rate": 5e-3, "batch_size": 8, "steps": 250,
    "augmentation": [], "ema_decay": 0.9,
}, "blobgan": TOY_GENERATOR | {
    "generator_every": 1, "channels": [16, 16, 8], "discriminator_channels": [8, 16, 16], "blobs": 6, "blob_area": 0.02,
    "latent": 8, "layout_width": 32, "layout_layers": 3, "feat": 8, "style": 8, "encoder_channels": [8, 16, 16],
}, "stylegan": TOY_GENERATOR | {
    "generator_every": 1, "size_in": 4, "channels": [16, 16, 16, 8], "discriminator_channels": [8, 16, 16],
    "encoder_channels": [8, 16, 16], "latent": 8, "width": 16, "mapping_layers": 2, "lambda_classifier": 3.0,
}}


RESTS_ON = {"data/latents/blobgan": "models/generators/blobgan",
            "models/attributes/stylegan": "models/generators/stylegan",
            "models/segmenters/flip_mask": "models/generators/flip_mask"}


class BlobMaps(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        smooth = F.avg_pool2d(images, 3, stride=1, padding=1)
        edges = (images - smooth).abs()
        return torch.cat([F.relu(smooth - 0.2), F.relu(-0.5 - smooth), edges], dim=1)  # (B,1,H,W) -> (B,3,H,W)


class BlobClassifier(nn.Module):
    """The classifiers' interface with fixed weights: bright blobs speak for abnormal, dark ones a little against.

    Maps of the whole, half and a quarter of the size: bright blobs (strong weight), dark blobs (negative weight), edges
    (no weight).
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor([200.0, -4.0, 0.0]))
        self.bias = -2.0
        self.image_channels = 1
        self.trunk = nn.Sequential(BlobMaps(), nn.AvgPool2d(2), nn.AvgPool2d(2))  # (B,1,H,W) -> (B,3,H/4,W/4)

    def features(self, images: Tensor) -> Tensor:
        return self.trunk(images)

    def pooled(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))  # (B,3,h,w) -> (B,3)

    def head(self, features: Tensor) -> Tensor:
        return self.pooled(features) @ self.weights + self.bias  # (B,)

    def classifying_weights(self) -> Tensor:
        return self.weights

    def view(self, images: Tensor) -> View:
        maps = maps_by_size(self.trunk, images)
        return View(maps, self.pooled(maps[-1]), self.head(maps[-1]))

    def penultimate(self, images: Tensor) -> Tensor:
        return self.pooled(self.features(images))

    feature_count, has_maps = 3, True

    def last_layer(self) -> nn.Module:
        return self  # whose own weights are those of the head

    def input_height(self, images: Tensor) -> int:
        return images.shape[-2]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@pytest.fixture
def classifier() -> nn.Module:
    return BlobClassifier().eval().requires_grad_(False)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(RuntimeParams(device="cpu", precision="float32", threads=1))


@pytest.fixture
def context(classifier: nn.Module, runtime: Runtime) -> Context:
    return Context(classifier, runtime, seed=3)


def planted_images(count: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """Images (B,1,size,size) in [-1,1] of soft noise with one bright disc each, and the discs (B,size,size) bool."""
    generator = generator_for(11)
    noise = torch.rand(count, 1, size, size, generator=generator) * 2 - 1
    background = F.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False) * 0.5 - 0.3
    centres = 8 + torch.rand(count, 2, generator=generator) * (size - 16)
    grid = torch.arange(size).float()
    squared = (grid[:, None] - centres[:, :1, None]) ** 2 + (grid - centres[:, 1:, None]) ** 2  # (B,size,size)
    discs = squared <= 4.0**2
    return torch.where(discs[:, None], 0.8, background), discs


@pytest.fixture
def planted() -> tuple[Tensor, Tensor]:
    return planted_images(4)


@pytest.fixture
def planted_nine() -> Tensor:
    return planted_images(9)[0]


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory) -> Callable[[str], Path]:
    """`toy_models(needs)` -> a root in which the folder `needs` holds a toy of that model; trained once per run."""
    root = tmp_path_factory.mktemp("toys")

    def make(needs: str) -> Path:
        if needs != CLASSIFIER and not (root / needs).is_dir():
            if needs in RESTS_ON:
                make(RESTS_ON[needs])

            def train(folder: Path) -> None:
                train_toy(needs, root)
                shutil.copytree(root / needs, folder, dirs_exist_ok=True)

            trained = made_once(tmp_path_factory, f"toy-{needs.replace('/', '-')}", train)
            if not (root / needs).is_dir():
                shutil.copytree(trained, root / needs)
        return root

    return make


def train_toy(needs: str, root: Path) -> None:
    """The toy of one kind of model, in `root`/`needs`; the one that it rests on is there."""
    if needs == "data/latents/blobgan":
        invert_planted(root)
    elif needs == "models/attributes/stylegan":
        find_in_planted(root)
    elif needs == SLICES:
        write_planted(root)
    elif needs == "models/segmenters/flip_mask":
        teach_planted(root)
    elif needs == "models/segmenters/supervised":
        train_toy_segmenter("supervised", root, lambda data, discs: Labels(
            discs, torch.zeros_like(discs), torch.ones(len(discs), dtype=torch.bool)))
    elif needs.startswith("models/generators/"):
        train_toy_generator(needs.rsplit("/", 1)[1], root)
    else:
        pytest.fail(f"tests/methods/conftest.py makes no toy model for {needs} yet: add one to `train_toy`")


def train_toy_generator(name: str, root: Path) -> None:
    """The generator `name` as params.yaml has it, but small and shortly trained, in `root`/models/generators/`name`."""
    kind = find_generator(name)
    params = load_section(f"generators.{name}", kind.Params, PARAMS)
    params = params.model_copy(update=TOY_GENERATORS.get(name, TOY_GENERATOR))
    data, _ = planted_slices()
    classifier = data.classifier
    seed_everything(0)
    trained = kind(params, classifier, 0.005).train(data, 0, Scratch("toy", name))
    architecture = kind.architecture_of(params, classifier)
    save_model(root / "models/generators" / name, trained.network, {"architecture": architecture})


def planted_slices() -> tuple[TrainingSlices, Tensor]:
    """64 images with a disc and the same without, as training slices, and the discs (128,32,32) bool."""
    images, discs = planted_images(64)
    healthy = images.masked_fill(discs[:, None], -0.3)
    both = torch.cat([images, healthy])[:, 0].half()  # (N,H,W)
    runtime = Runtime(RuntimeParams(device="cpu", precision="float32", threads=1))
    data = TrainingSlices(both, torch.ones_like(both, dtype=torch.uint8), torch.arange(len(both)) < len(images),
                          torch.linspace(0, 1, len(images)).repeat(2), BlobClassifier().eval(), runtime)
    return data, torch.cat([discs, torch.zeros_like(discs)])


def teach_planted(root: Path) -> None:
    """A student of the toy mask network, in `root`/models/segmenters/flip_mask."""
    source = root / "models/generators/flip_mask"
    teacher = load_generator(source, Runtime(RuntimeParams(device="cpu", precision="float32", threads=1)))
    masks = load_section("pseudo_masks", PseudoMaskParams, PARAMS)
    masks = masks.model_copy(update={"verify": False})  # the toy classifier is never as sure of "healthy"
    train_toy_segmenter(
        "flip_mask", root, lambda data, _: pseudo_labels(data, teacher, lambda x: teacher.parts(x)[0], masks),
        {"teacher": {"generator": "flip_mask", "architecture": read_description(source)["architecture"]}}, teacher)


def train_toy_segmenter(name: str, root: Path, label: Callable[[TrainingSlices, Tensor], Labels],
                        more: dict[str, Any] | None = None, teacher: nn.Module | None = None) -> None:
    """A small segmenter of the planted slices, labelled by `label`, in `root`/models/segmenters/`name`."""
    params = load_section("segmenter", SegmenterParams, PARAMS).model_copy(update={
        "channels": [8, 16], "steps": 80, "learning_rate": 5e-3, "ema_decay": 0.9, "augmentation": []})
    architecture = {"student": {"inputs": 1, "channels": params.channels, "outputs": 1}, **(more or {})}
    data, discs = planted_slices()
    seed_everything(0)
    networks = build_segmenter(architecture)
    if teacher is not None:
        networks["teacher"] = teacher
    trained = train_segmenter(networks["student"], data, label(data, discs), params, 0,
                              Scratch("toy_segmenter", name))
    networks["student"] = trained.network
    save_model(root / "models/segmenters" / name, networks, {"architecture": architecture})


def invert_planted(root: Path) -> None:
    """Blobs of the four images of `planted`, as rows 0 to 3 of a store, with the toy generator's own encoder."""
    runtime = Runtime(RuntimeParams(device="cpu", precision="float32", threads=1))
    source = root / "models/generators/blobgan"
    generator, images = load_generator(source, runtime), planted_images(4)[0]
    params = load_section("inversions.blobgan", InversionParams, PARAMS).model_copy(update={"steps": 40})
    classifier = BlobClassifier().eval().requires_grad_(False)
    layout, _ = invert(generator, generator.encoder, observer_of(classifier), images, params)
    index = pd.DataFrame({"slice_id": list("abcd"), "split": "test", "row": range(4)})
    write_latents(root / "data/latents/blobgan", layout, index, {"seconds_per_image": 0.5}, source)


def write_planted(root: Path) -> None:
    """A slice store of six training images with a disc and six without."""
    images, lesions = planted_images(6)
    both = torch.cat([images, images.masked_fill(lesions[:, None], -0.3)])[:, 0].numpy()
    index = pd.DataFrame({"slice_id": [str(row) for row in range(12)], "split": "train", "label": [1] * 6 + [0] * 6})
    write_store(root / SLICES, both, np.ones(both.shape, np.uint8), index.reindex(columns=INDEX_COLUMNS, fill_value=0))


def find_in_planted(root: Path) -> None:
    """The toy StyleGAN's attributes, found in twelve images with a disc."""
    runtime = Runtime(RuntimeParams(device="cpu", precision="float32", threads=1))
    source = root / "models/generators/stylegan"
    generator, classifier = load_generator(source, runtime), BlobClassifier().eval().requires_grad_(False)
    params = load_section("attributes.stylegan", AttributeParams, PARAMS)
    images, lesions = planted_images(24)
    both = torch.cat([images, images.masked_fill(lesions[:, None], -0.3)])[:, 0].numpy()
    styles = encode_slices(generator, both, classifier(torch.as_tensor(both)[:, None]), 16, runtime)
    extremes, called = Extremes.of(styles), styles.rows(torch.arange(12))
    effects, logits, _ = measure_all_effects(generator, classifier, called, extremes, params,
                                             Scratch("toy_attributes", 0), runtime)
    chosen, _ = select_moves(effects, logits, params)
    extremes.attributes(chosen, params.shift).write(root / "models/attributes/stylegan", source)


@pytest.fixture
def prepared_needs(toy_models, monkeypatch) -> Callable[[str], None]:
    """`prepared_needs(needs)` lets the test run where the model folder `needs` can be read."""
    return lambda needs: monkeypatch.chdir(toy_models(needs))

"""Processes that train together as Lightning Fabric starts them, and what each of them trains."""

from __future__ import annotations

import functools
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flipside.classifiers import training as classifiers
from flipside.classifiers.networks.backbones import Classifier, small_resnet_trunk
from flipside.core import ranks
from flipside.core.checkpoint import Scratch
from flipside.generators.base import state
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.encoders.training import EncoderParams, EncoderTraining, train_encoder
from flipside.generators.impact import Impact
from flipside.generators.nn.unet import UNet
from flipside.segmenters import training as segmenters
from tests.apart import call_and_leave, server
from tests.classifiers.test_training import BASE, dataset
from tests.generators.toys import (
    BLOBGAN,
    ENCODER,
    IMPACT,
    LESION,
    BlobClassifier,
    toy_data,
    train,
)
from tests.generators.training.test_adversarial import GENERATORS
from tests.segmenters.test_training import params as segmenter_params
from tests.segmenters.test_training import transplants, true_labels

STEPS = 20
AUGMENTATION = [
    {"name": "affine", "probability": 0.5, "shift": 0.07, "scale": 0.1, "rotate_degrees": 10},
    {"name": "noise", "probability": 0.5, "deviation": 0.05}]
CALM = {"steps": STEPS, "learning_rate": 1e-4}
# Of a bias in front of a batch norm the gradient is 0 but for rounding, which Adam would divide by its own size; what
# is left of it grows from step to step.
WITH_BATCH_NORM = {"steps": 6}
CHANGES: dict[str, dict[str, Any]] = {
    "flip_mask": {"augmentation": AUGMENTATION}, "va_gan": {"augmentation": AUGMENTATION},
    "coin": WITH_BATCH_NORM, "singla": WITH_BATCH_NORM, "coin_aligned": WITH_BATCH_NORM}
ADAM = functools.partial(torch.optim.Adam, eps=1e-3)


def train_generator(name: str) -> torch.nn.Module:
    kind, values = GENERATORS[name]
    return train(kind, kind.Params(**values | CALM | CHANGES.get(name, {})), name)[0]


def train_impact() -> torch.nn.Module:
    chosen = IMPACT | {"steps": 4, "fine_tuning_steps": 2, "learning_rate": 1e-4, "fine_tuning_learning_rate": 1e-5}
    return train(Impact, Impact.Params(**chosen), "impact")[0]


def blob_encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    kind = GENERATORS["blobgan"][0]
    gan = kind(kind.Params(**BLOBGAN), BlobClassifier(), LESION)
    params = EncoderParams(**ENCODER | {"pretrain": ENCODER["pretrain"] | {"learning_rate": 1e-4},
                                        "finetune": ENCODER["finetune"] | {"learning_rate": 1e-4}})
    training = EncoderTraining.of(gan.network.requires_grad_(False), gan.architecture_of(gan.params, gan.classifier),
                                  observer_of(BlobClassifier()), params)
    return train_encoder(training, toy_data(), 3, Scratch("encoder", 1)).network


def segmenter() -> torch.nn.Module:
    torch.manual_seed(0)
    params = segmenter_params(augmentation=AUGMENTATION, steps=STEPS // 2, learning_rate=1e-4)
    return segmenters.train_segmenter(UNet(1, params.channels, 1), toy_data(), true_labels(), params, 3,
                                      Scratch("segmenter", 1), transplants(), 2, lambda student: true_labels()).network


def classifier() -> torch.nn.Module:
    """With batch norm and dropout."""
    torch.manual_seed(0)
    params = classifiers.ClassifierParams(**BASE | {"epochs": 2, "steps_per_epoch": STEPS // 2, "learning_rate": 1e-4,
                                                    "augmentation": AUGMENTATION})
    made = Classifier(*small_resnet_trunk(8), dropout=0.3)
    classifiers.train(made, params, 7, dataset(), dataset(32, 1), toy_data().runtime, Scratch("classifier", 1))
    return made


TRAININGS: dict[str, Callable[[], torch.nn.Module]] = {
    **{name: lambda name=name: train_generator(name) for name in GENERATORS},  # type: ignore[misc]
    "impact": train_impact, "encoder": blob_encoder, "segmenter": segmenter,
    "classifier": classifier}


def train_all(folder: Path) -> None:
    """Every training from its fixed start; the weights of all in `folder/<rank>.pt`."""
    os.chdir(tempfile.mkdtemp(dir=folder))
    torch.optim.Adam = ADAM  # type: ignore[misc]  # in this process
    weights = {name: trained().state_dict() for name, trained in TRAININGS.items()}
    torch.save(weights, folder / f"{ranks.number()}.pt")


def train_cx_gan(folder: Path, dies_on: int | None) -> None:
    """CX-GAN, saved every 5 steps; rank `dies_on` dies at step 13, as if by SIGKILL. The writer saves the weights."""
    os.chdir(folder)
    kind, values = GENERATORS["cx_gan"]
    state.RECORD_EVERY, state.SAVE_EVERY_SECONDS = 5, 0.0
    draw, calls = kind.draw, []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 13 and ranks.number() == dies_on:
            os._exit(9)
        return draw(*arguments)

    kind.draw = counted
    network, _ = train(kind, kind.Params(**values | CALM), "cx_gan")
    ranks.end()
    torch.save(network.state_dict(), folder / "cx_gan.pt")


def run_ranks(count: int, function: Callable[..., Any], *arguments: Any, timeout: float = 600) -> list[int | None]:
    """Call a function on so many ranks at once, each a process of its own; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [server().Process(target=_rank, args=(rank, count, port, function, arguments), daemon=True)
                 for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        process.kill()
    return [process.exitcode for process in processes]


def _rank(rank: int, count: int, port: int, function: Callable[..., Any], arguments: tuple) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}

    def launched() -> None:
        ranks.launch("cpu", count, (8,))
        torch.set_num_threads(1)
        function(*arguments)

    call_and_leave(launched)

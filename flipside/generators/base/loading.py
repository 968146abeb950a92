"""Generators by name, and trained ones from their folders."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from flipside.core.checkpoint import load_weights, read_description
from flipside.core.plugins import find_class
from flipside.core.runtime import Runtime
from flipside.generators.base.generator import TrainedGenerator


def find_generator(name: str) -> type[TrainedGenerator]:
    """The class that `flipside/generators/<name>.py` defines; PluginError where there is none."""
    return find_class("flipside.generators", name, TrainedGenerator)  # type: ignore[type-abstract]  # only looked for


def load_generator(path: Path | str, runtime: Runtime) -> nn.Module:
    """The network that `train_generator` left in `path`: frozen, in eval mode, on the runtime's device.

    Its code is found by the folder's name (`models/generators/coin` -> `flipside/generators/coin.py`), its architecture
    in `model.json`.
    """
    network = find_generator(Path(path).name).build(read_description(path)["architecture"])
    return runtime.place(load_weights(path, network))

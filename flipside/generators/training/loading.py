"""A trained generator from its folder, for the rooms that use it."""

from __future__ import annotations

import importlib
from pathlib import Path

from torch import nn

from flipside.core.checkpoint import load_weights, read_description
from flipside.core.runtime import Runtime


def load_generator(path: Path | str, runtime: Runtime) -> nn.Module:
    """The generator that `train_generator` left in `path`: frozen, in eval mode, on the runtime's device.

    Its code is found by the folder's name (`models/generators/coin` -> `flipside.generators.coin`), its architecture in
    `model.json`.
    """
    module = importlib.import_module(f"flipside.generators.{Path(path).name}")
    return runtime.place(load_weights(path, module.build(read_description(path)["architecture"])))

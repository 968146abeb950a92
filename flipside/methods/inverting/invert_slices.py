"""Inversion of many slices: batch by batch, in any process, and put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import pandas as pd
import torch

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import load_weights, read_description
from flipside.core.parallel import Effort, Result
from flipside.core.runtime import RuntimeParams, now
from flipside.core.store import SliceStore, as_channels
from flipside.generators.base.loading import load_generator
from flipside.generators.codes.blobs import Layout
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.methods.latent.blob_generator import BlobGenerator
from flipside.methods.latent.inversion import InversionParams, invert


class Inverter:
    """What a process needs to invert batches of slices."""

    def __init__(self, name: str, params: InversionParams, seed: int, runtime_params: RuntimeParams):
        self.params = params
        self.runtime = runtimes.start(seed, runtime_params)
        self.store = SliceStore.open(paths.SLICES)
        self.generator = cast(BlobGenerator, load_generator(paths.generator(name), self.runtime))
        self.observer = observer_of(load_classifier(paths.CLASSIFIER, self.runtime, self.store.channels))
        encoder = build_encoder(read_description(paths.encoder(name))["architecture"])
        self.encoder = self.runtime.place(load_weights(paths.encoder(name), encoder))

    def __call__(self, rows: np.ndarray) -> Result:
        """Of the slices at the store's positions `rows` (B,): their blobs (B,...), and per slice the terms of equation
        3 with f_x, f_reconstruction and absolute_error; the seconds."""
        images = as_channels(torch.as_tensor(self.store.images[rows], device=self.runtime.device).float())  # (B,C,H,W)
        began = now(self.runtime)
        layout, terms = invert(self.generator, self.encoder, self.observer, images, self.params)
        seconds = now(self.runtime) - began
        with torch.no_grad():
            made = self.generator.render(layout).clamp(-1, 1)  # as it is shown
            terms |= {"f_x": self.observer(images).logits.sigmoid(),
                      "f_reconstruction": self.observer(made).logits.sigmoid(),
                      "absolute_error": (made - images).abs().mean(dim=(1, 2, 3))}
        arrays = {name: value.float().cpu().numpy() for name, value in (layout.groups() | terms).items()}
        return arrays, {"seconds": seconds, "peak_memory_gb": self.runtime.peak_memory_gb(),
                        "device": self.runtime.describe()}


def join_inversions(results: Iterable[Result], blob_area: float) -> tuple[Layout, pd.DataFrame, Effort]:
    """The results of all batches, in order: blobs (N,...) on the CPU, a table of all else, and what it took."""
    parts, records = zip(*results, strict=True)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    blobs = {name: torch.from_numpy(whole.pop(name)) for name in [*whole] if name in Layout.__dataclass_fields__}
    effort = Effort()
    for record in records:
        effort.add(record)
    return Layout(**blobs, area=blob_area), pd.DataFrame(whole), effort

"""A method's explanations of many slices: batch by batch, in any process, and put together on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flipside.artifacts.explanations import ATTRIBUTION, COUNTERFACTUAL, Extra, Image, Number, Table
from flipside.classifiers.networks.backbones import load_classifier, predict_probabilities
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.files import naming_a_full_disk, new_memmap
from flipside.core.parallel import Effort, Result
from flipside.core.runtime import RuntimeParams, now
from flipside.core.store import SliceStore, as_channels
from flipside.methods.base.method import Context, find_method
from flipside.methods.base.parameters import MethodParams

SCORED_AT_ONCE = 256


class Explainer:
    """A method with slices, models and device: what a process needs to explain batches."""

    def __init__(self, name: str, params: MethodParams, seed: int, runtime_params: RuntimeParams):
        self.name = name
        self.runtime = runtimes.start(seed, runtime_params)
        self.store = SliceStore.open(paths.SLICES)
        self.classifier = load_classifier(paths.CLASSIFIER, self.runtime, self.store.channels)
        self.context = Context(self.classifier, self.runtime, seed)
        self.method = find_method(name)(params, self.context)

    def __call__(self, rows: np.ndarray) -> Result:
        """Explanations of the slices at the store's positions `rows` (B,), as they are stored, and the seconds that the
        method took. Raises ValueError for an extra that the method doesn't declare, and for too few or too many."""
        scans = as_channels(torch.as_tensor(self.store.images[rows], device=self.runtime.device).float())  # (B,C,H,W)
        organ = torch.as_tensor(self.store.organ[rows], device=self.runtime.device)  # (B,H,W)

        began = now(self.runtime)
        batch = self.method(scans, torch.as_tensor(rows), organ)
        seconds = now(self.runtime) - began

        arrays = {ATTRIBUTION.name: batch.attribution.float().cpu().numpy().astype(np.float16)}
        if batch.counterfactual is not None:
            arrays[COUNTERFACTUAL.name] = _as_stored_image(batch.counterfactual)
        for extra, values in batch.extras.items():
            if extra not in self.method.extras:
                raise ValueError(f"method {self.name} gives `{extra.name}`, which its class doesn't declare: add it to "
                                 f"the `extras` of {type(self.method).__name__}")
            arrays[extra.name] = _as_stored(extra, values)
        for stored, array in arrays.items():
            if len(array) != len(rows):
                raise ValueError(f"method {self.name} gives {len(array)} `{stored}` for {len(rows)} slices")
        return arrays, {"seconds": seconds, "peak_memory_gb": self.runtime.peak_memory_gb(),
                        "device": self.runtime.describe()}

    def score_slices(self, rows: np.ndarray) -> np.ndarray:
        """The classifier's probability of abnormal (N,) of the store's slices at `rows` (N,)."""
        parts = [rows[start : start + SCORED_AT_ONCE] for start in range(0, len(rows), SCORED_AT_ONCE)]
        return np.concatenate([predict_probabilities(self.classifier, self.store.images[part], self.runtime)
                               for part in parts])


@dataclass
class Explained:
    """A method's answers for N slices, as they are stored; its arrays are on disk."""

    # Images (N,H,W), or (N,C,H,W), float16 in their range, and tables (N,K,M) float32.
    arrays: dict[Image | Table, np.ndarray] = field(default_factory=dict)
    numbers: dict[Number, np.ndarray] = field(default_factory=dict)  # (N,)
    effort: Effort = field(default_factory=Effort)  # of the method


def join_explanations(results: Iterable[Result], extras: Iterable[Extra], count: int, folder: Path) -> Explained:
    """The results of all batches, in order, of `count` slices; what is large is put together in files in `folder`.

    Raises DiskFullError, and ValueError where a batch lacks what others have."""
    kinds = {kind.name: kind for kind in (ATTRIBUTION, COUNTERFACTUAL, *extras)}
    found, start = Explained(), 0
    numbers: dict[Number, list[np.ndarray]] = {}
    names: set[str] | None = None
    for arrays, record in results:
        names = names or set(arrays)
        if other := names ^ set(arrays):
            raise ValueError(f"some batches have {', '.join(sorted(other))}, others don't: a method gives the same of "
                             "every slice")
        stop = start + len(arrays[ATTRIBUTION.name])
        for name, values in arrays.items():
            kind = kinds[name]
            if isinstance(kind, Number):
                numbers.setdefault(kind, []).append(values)
                continue
            if kind not in found.arrays:
                with naming_a_full_disk(folder / f"{name}.npy"):
                    found.arrays[kind] = new_memmap(folder / f"{name}.npy", values.dtype.type,
                                                    (count, *values.shape[1:]))
            found.arrays[kind][start:stop] = values
        start = stop
        found.effort.add(record)
    found.numbers = {kind: np.concatenate(parts) for kind, parts in numbers.items()}
    return found


def _as_stored(extra: Extra, values: Tensor) -> np.ndarray:
    if isinstance(extra, Image):
        return _as_stored_image(values)
    return values.float().cpu().numpy() if isinstance(extra, Table) else values.cpu().numpy()


def _as_stored_image(images: Tensor) -> np.ndarray:
    """(B,1,H,W) -> (B,H,W), several channels as they are."""
    return images.squeeze(1).float().cpu().numpy().astype(np.float16)

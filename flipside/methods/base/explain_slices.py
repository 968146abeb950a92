"""A method's explanations of many slices, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flipside.artifacts.explanations import Extra, Image, Number, Table
from flipside.core.progress import Ticker
from flipside.core.runtime import Runtime, now
from flipside.core.store import SliceStore, as_channels
from flipside.methods.base.method import Method


@dataclass(frozen=True)
class Explained:
    """A method's answers for N slices, as they are stored."""

    attribution: np.ndarray  # (N,H,W) float16 in [0,1]
    counterfactual: np.ndarray | None  # (N,H,W), with several channels (N,C,H,W), float16 in [-1,1]
    numbers: dict[Number, np.ndarray]  # (N,) each
    arrays: dict[Image | Table, np.ndarray]  # images as these, or (N,K,M) float32
    seconds: float  # spent in the method


def explain_slices(method: Method, store: SliceStore, rows: np.ndarray, batch_size: int, runtime: Runtime,
                   name: str) -> Explained:
    """Explain the slices at the store's positions `rows` (N,). `name`: the method's, shown with the progress.

    Raises ValueError for an extra that the method doesn't declare.
    """
    attribution = np.empty((len(rows), *store.sides), np.float16)
    counterfactuals: list[np.ndarray] = []
    extras: dict[Extra, list[np.ndarray]] = {}
    seconds = 0.0
    ticker = Ticker(f"explain {name}", total=len(rows))
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        scans = as_channels(torch.as_tensor(store.images[part], device=runtime.device).float())  # (B,C,H,W)
        organ = torch.as_tensor(store.organ[part], device=runtime.device)  # (B,H,W)

        began = now(runtime)
        batch = method(scans, torch.as_tensor(part), organ)
        seconds += now(runtime) - began

        attribution[start : start + len(part)] = batch.attribution.float().cpu().numpy()
        if batch.counterfactual is not None:
            counterfactuals.append(_as_stored_image(batch.counterfactual))
        for extra, values in batch.extras.items():
            if extra not in method.extras:
                raise ValueError(f"method {name} gives `{extra.name}`, which its class doesn't declare: add it to the "
                                 f"`extras` of {type(method).__name__}")
            extras.setdefault(extra, []).append(_as_stored(extra, values))
        ticker.tick(start + len(part))
    joined = {extra: np.concatenate(parts) for extra, parts in extras.items()}
    return Explained(attribution, np.concatenate(counterfactuals) if counterfactuals else None,
                     {extra: values for extra, values in joined.items() if isinstance(extra, Number)},
                     {extra: values for extra, values in joined.items() if not isinstance(extra, Number)}, seconds)


def _as_stored(extra: Extra, values: Tensor) -> np.ndarray:
    if isinstance(extra, Image):
        return _as_stored_image(values)
    return values.float().cpu().numpy() if isinstance(extra, Table) else values.cpu().numpy()


def _as_stored_image(images: Tensor) -> np.ndarray:
    """(B,1,H,W) -> (B,H,W), several channels as they are."""
    return images.squeeze(1).float().cpu().numpy().astype(np.float16)

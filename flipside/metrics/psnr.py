"""Where anomalies or effects are synthetic, the image without them is known: how near a counterfactual comes to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.files import read_json
from flipside.core.store import SliceStore, apply_window
from flipside.metrics.evaluation import EvaluationError, is_lesion_case
from flipside.metrics.row_batches import row_batches
from flipside.scans.geometry import resize_bilinear

COLUMNS = ("psnr_clean", "psnr_clean_unchanged")  # of the counterfactual, of the scan as it is
WITHOUT_EFFECT = Path("data/raw/synthetic_effect/clean")
HIGHEST_DB = 100.0  # what an image scores that is the clean one: metrics are finite


def open_clean(slice_ids: pd.Series) -> np.ndarray | None:
    """The slices (N,H,W) in [-1,1] before their anomalies were drawn, or the images of `synthetic_effect` without their
    effect; None where neither was simulated."""
    if not Path("data/slices/manifest.json").is_file():
        return None
    manifest = read_json("data/slices/manifest.json")
    if manifest["dataset"] == "synthetic_effect":
        return _without_effect(slice_ids, SliceStore.open("data/slices").images.shape[1], manifest["window"])
    if not manifest["anomalies"]["drawn"]:
        return None
    filtered = SliceStore.open("data/filtered")
    sources = slice_ids.str.replace(r":d\d+$", "", regex=True)  # several draws of one slice: :d0, :d1, ...
    at = pd.Index(filtered.index["slice_id"]).get_indexer(sources)
    if (at < 0).any():
        raise EvaluationError(f"data/filtered lacks {(at < 0).sum()} of the {len(at)} test slices (first: "
                              f"{sources[at < 0].iloc[0]}): it is of another run than data/slices, run `dvc repro`")
    return filtered.images[at]


def _without_effect(names: pd.Series, image_size: int, window: list[float]) -> np.ndarray:
    """(N,image_size,image_size) in [-1,1], resized and windowed as the images with the effect were."""
    files = [WITHOUT_EFFECT / f"{name}.png" for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise EvaluationError(f"{missing[0]} not found (and {len(missing) - 1} more): run `dvc repro simulate_effects`")
    pixels = (np.asarray(Image.open(file)).astype(np.float32) for file in files)
    return apply_window(np.stack([resize_bilinear(each, image_size) for each in pixels]), window)


def psnr(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (N,) in dB, at most HIGHEST_DB, of images against clean ones (N,H,W) in [-1,1]."""
    errors = np.empty(len(images))
    for part in row_batches(images.shape):
        difference = np.asarray(images[part], np.float64) - np.asarray(clean[part], np.float64)
        errors[part] = (difference**2).mean(axis=(1, 2))
    return 10 * np.log10(4 / np.maximum(errors, 4 / 10 ** (HIGHEST_DB / 10)))  # the range [-1,1] is 2 wide


def clean_metrics(cases: pd.DataFrame) -> dict[str, float]:
    """Means of COLUMNS over the lesion cases that the classifier calls abnormal, with their count; {} where unknown."""
    called = cases[is_lesion_case(cases) & (cases["f_x"] >= CALLED_ABNORMAL)].dropna(subset=list(COLUMNS))
    if len(called) == 0:
        return {}
    return {"n_psnr_clean": len(called), **{name: called[name].mean() for name in COLUMNS}}

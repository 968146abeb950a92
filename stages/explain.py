"""Stage: slices + trained models -> one method's explanations of all slices of the splits in `explain.splits`.

Then the randomisation check: some of its maps drawn again under shuffled weights of the classifier, and compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from flipside.artifacts.explanations import write_explanations
from flipside.classifiers.backbones import load_classifier, predict_probabilities
from flipside.core import runtime as runtimes
from flipside.core.files import write_json
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.progress import Ticker
from flipside.core.runtime import Runtime, now
from flipside.core.store import SliceStore
from flipside.methods.base.method import CLASSIFIER, Context, ExplainParams, ExplanationBatch, load_method
from flipside.methods.checks.randomisation import SanityParams, check, sentence

# Of `ExplanationBatch`, one for each image, where a method has them.
NUMBERS = ("f_reconstruction", "steps", "cycle_l1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, help="a name under `methods` in params.yaml")
    name = parser.parse_args().method

    # Parameters, models, slices.
    module = load_method(name)
    params = load_section("explain", ExplainParams)
    sanity = load_section("sanity", SanityParams)
    method_params = load_section(f"methods.{name}", module.MethodParams)
    seed = load_value("seed", int)
    announce(f"explain {name}", seed=seed, explain=params, sanity=sanity, **{name: method_params})
    runtime = runtimes.start(seed)
    classifier = load_classifier(CLASSIFIER, runtime)
    context = Context(classifier, runtime, seed)
    method = module.Method(method_params, context)
    store = SliceStore.open("data/slices")
    rows = store.rows(tuple(params.splits))
    if len(rows) == 0:
        raise ValueError(f"data/slices has no slice of the splits {params.splits}: see `explain.splits` in params.yaml")

    # Explanations, and the classifier's answer to what is stored.
    maps, images, numbers, seconds = explain_rows(method, store, rows, params.batch_size, runtime, name)
    seconds += getattr(method, "seconds_before", 0.0) * len(rows)
    index = pd.DataFrame({
        "slice_id": store.index["slice_id"].to_numpy()[rows],
        "f_x": predict_probabilities(classifier, store.images[rows], runtime),
        **{column: predict_probabilities(classifier, images[kind], runtime) if kind in images else np.nan
           for kind, column in {"counterfactual": "f_x_cf", "abnormal": "f_x_ab"}.items()},
        **{column: numbers.get(column, np.nan) for column in NUMBERS},
    })

    # Outputs.
    timing = {
        "seconds": seconds, "images": len(rows), "seconds_per_image": seconds / len(rows),
        "device": runtime.describe(), "peak_memory_gb": runtime.peak_memory_gb(),
    }
    write_explanations(f"data/explanations/{name}", maps, images.get("counterfactual"), index, timing,
                       images.get("abnormal"), images.get("roi"), images.get("blobs"))
    print(f"{name}: {len(rows)} slices explained, {seconds / len(rows):.4f} s per slice; {timing['device']}, "
          f"peak memory {timing['peak_memory_gb']:.2f} GB")

    # Do the maps depend on the classifier's weights?
    found = check(module, method_params, context, store, sanity, params.batch_size)
    write_json(f"data/sanity/{name}.json", found)
    print(sentence(name, found))


def explain_rows(
    method: Callable[..., ExplanationBatch], store: SliceStore, rows: np.ndarray, batch_size: int, runtime: Runtime,
    name: str,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], float]:
    """Attribution (N,H,W); the images that the method makes, by field of `ExplanationBatch`, each (N,H,W), all float16
    (`blobs` (N,K,7) float32); the NUMBERS that it has, each (N,); the seconds spent in the method."""
    maps = np.empty((len(rows), *store.images.shape[1:]), np.float16)
    images: dict[str, list[np.ndarray]] = {}
    numbers: dict[str, list[np.ndarray]] = {}
    seconds = 0.0
    ticker = Ticker(f"explain {name}", total=len(rows))
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        scans = torch.as_tensor(store.images[part], device=runtime.device).float().unsqueeze(1)  # (B,H,W) -> (B,1,H,W)
        organ = torch.as_tensor(store.organ[part], device=runtime.device)  # (B,H,W)

        began = now(runtime)
        batch = method(scans, torch.as_tensor(part), organ)
        seconds += now(runtime) - began

        maps[start : start + len(part)] = batch.attribution.float().cpu().numpy()
        for kind in ("counterfactual", "abnormal", "roi"):
            if (made := getattr(batch, kind)) is not None:
                images.setdefault(kind, []).append(made.squeeze(1).float().cpu().numpy().astype(np.float16))
        if batch.blobs is not None:
            images.setdefault("blobs", []).append(batch.blobs.float().cpu().numpy())
        for column in NUMBERS:
            if (values := getattr(batch, column)) is not None:
                numbers.setdefault(column, []).append(values.cpu().numpy())
        ticker.tick(start + len(part))
    joined = [{key: np.concatenate(parts) for key, parts in each.items()} for each in (images, numbers)]
    return maps, joined[0], joined[1], seconds


if __name__ == "__main__":
    stage_main(main)

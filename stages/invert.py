"""Stage: slices + generator + encoder -> the blobs of every explained slice (`--generator blobgan`)."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from flipside.classifiers.backbones import load_classifier
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, load_weights, read_description
from flipside.core.files import file_digest
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.progress import Ticker
from flipside.core.runtime import Runtime, now
from flipside.core.store import SliceStore
from flipside.generators.nn.blobs import Layout
from flipside.generators.nn.encoding import build_encoder, observer_of
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import CLASSIFIER, ExplainParams
from flipside.methods.latent.inversion import InversionParams, invert
from flipside.methods.latent.latents import write_latents

SAVE_EVERY_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `inversions` in params.yaml")
    name = parser.parse_args().generator

    # Parameters, slices, frozen networks.
    params = load_section(f"inversions.{name}", InversionParams)
    splits, seed = load_section("explain", ExplainParams).splits, load_value("seed", int)
    announce(f"invert {name}", seed=seed, splits=splits, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open("data/slices")
    source, encoder_source = f"models/generators/{name}", f"models/encoders/{name}"
    generator, classifier = load_generator(source, runtime), load_classifier(CLASSIFIER, runtime)
    architecture = read_description(encoder_source)["architecture"]
    encoder = runtime.place(load_weights(encoder_source, build_encoder(architecture)))

    # Inversion, a batch of slices at a time.
    rows = store.rows(tuple(splits))
    observer = observer_of(classifier)
    scratch = Scratch(f"invert/{name}", [params.model_dump(), seed, splits, store.fingerprint, observer.name, *(
        file_digest(f"{model}/model.safetensors") for model in (source, encoder_source, CLASSIFIER))])
    layout, table, seconds = invert_rows(generator, encoder, observer, store, rows, params, runtime, scratch)

    # Outputs.
    index = store.index.iloc[rows][["slice_id", "split"]].reset_index(drop=True).assign(row=rows, **table)
    kept = float(((index["f_x"] >= 0.5) == (index["f_reconstruction"] >= 0.5)).mean())
    error = float(index["absolute_error"].mean())
    timing = {"seconds": seconds, "images": len(rows), "seconds_per_image": seconds / len(rows), "decision_kept": kept,
              "absolute_error": error, "perceptual": observer.name, "device": runtime.describe(),
              "peak_memory_gb": runtime.peak_memory_gb()}
    write_latents(f"data/latents/{name}", layout, index, timing, source)
    scratch.clear()
    print(f"{name}: {len(rows)} slices inverted, mean absolute error {error:.4f}, decision kept on {kept:.1%}, "
          f"{seconds / len(rows):.3f} s per slice; {runtime.describe()}")


def invert_rows(generator: nn.Module, encoder: nn.Module, observer: Any, store: SliceStore, rows: np.ndarray,
                params: InversionParams, runtime: Runtime,
                scratch: Scratch) -> tuple[Layout, pd.DataFrame, float]:
    """Blobs (N,...) on the CPU, per slice the terms of equation 3 with f(x), f(reconstruction), error; the seconds.

    Goes on from `scratch`, which keeps whole batches.
    """
    parts: list[dict[str, torch.Tensor]] = []
    done, seconds = 0, 0.0
    if state := scratch.load():
        parts, done, seconds = state["parts"], state["step"], state["seconds"]
    ticker, saved = Ticker(f"invert {scratch.folder.name}", len(rows), done), time.monotonic()
    while done < len(rows):
        chosen = rows[done : done + params.batch_size]
        images = torch.as_tensor(store.images[chosen], device=runtime.device).float().unsqueeze(1)  # (B,1,H,W)
        began = now(runtime)
        layout, terms = invert(generator, encoder, observer, images, params)
        seconds += now(runtime) - began
        with torch.no_grad():
            made = generator.render(layout).clamp(-1, 1)  # as it is shown
            terms |= {"f_x": observer(images).logits.sigmoid(), "f_reconstruction": observer(made).logits.sigmoid(),
                      "absolute_error": (made - images).abs().mean(dim=(1, 2, 3))}
        parts.append({name: value.float().cpu() for name, value in (layout.groups() | terms).items()})
        done += len(chosen)
        ticker.tick(done, absolute_error=float(terms["absolute_error"].mean()))
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            scratch.save({"parts": parts, "step": done, "seconds": seconds})
            saved = time.monotonic()
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    groups = Layout.__dataclass_fields__
    table = pd.DataFrame({name: value.numpy() for name, value in whole.items() if name not in groups})
    return Layout(**{name: whole[name] for name in groups}), table, seconds


if __name__ == "__main__":
    stage_main(main)

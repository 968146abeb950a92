"""Stage: slices + StylEx's generator + classifier -> attributes that sway the classifier (`--generator stylegan`)."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn

from flipside.classifiers.backbones import load_classifier, predict_logits
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch
from flipside.core.files import atomic_folder, file_digest, write_json
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.progress import Ticker
from flipside.core.runtime import Runtime, now
from flipside.core.store import SliceStore
from flipside.generators.nn.stylegan_synthesis import Styles
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import CLASSIFIER
from flipside.methods.latent.attributes import (
    AttributeParams,
    Extremes,
    effects,
    pictured,
    select,
)

SAVE_EVERY_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `attributes` in params.yaml")
    name = parser.parse_args().generator

    # Parameters, slices, frozen networks.
    params, seed = load_section(f"attributes.{name}", AttributeParams), load_value("seed", int)
    announce(f"find_attributes {name}", seed=seed, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open("data/slices")
    source = f"models/generators/{name}"
    generator, classifier = load_generator(source, runtime), load_classifier(CLASSIFIER, runtime)

    # Effects of all moves in slices called abnormal; their range is that of all training slices.
    began = now(runtime)
    rows = store.rows("train")
    logits = predict_logits(classifier, store.images[rows], runtime)
    called = np.random.default_rng(seed % 2**32).permutation(np.flatnonzero(logits.numpy() >= 0))[: params.images]
    n_called = len(called)
    if n_called == 0:
        print("the classifier calls no training slice abnormal: the moves are tried in those nearest to it")
        called = np.argsort(-logits.numpy(), kind="stable")[: params.images]
    whole = encoded(generator, store.images[rows], logits, params.batch_size, runtime)
    extremes, styles = Extremes.of(whole), whole.rows(torch.as_tensor(called, device=runtime.device))
    scratch = Scratch(f"find_attributes/{name}", [params.images, params.shift, seed, store.fingerprint, *(
        file_digest(f"{model}/model.safetensors") for model in (source, CLASSIFIER))])
    found, base, seconds_before = measure(generator, classifier, styles, extremes, params, scratch, runtime)

    # The moves that are chosen, and what they look like.
    chosen, stable = select(found, base, params)
    attributes = extremes.attributes(chosen, params.shift)
    table, strip = pictured(generator, attributes, styles, found, base, chosen, params.batch_size)
    table = table.assign(example=store.index["slice_id"].to_numpy()[rows[called[table["example"].to_numpy()]]],
                         n_images=len(called), n_called=n_called, n_stable=int(stable.sum()))
    seconds = seconds_before + now(runtime) - began

    # Outputs.
    attributes.write(f"models/attributes/{name}", source)
    with atomic_folder(f"reports/training/{name}_attributes") as folder:
        table.to_csv(folder / "attributes.csv", index=False)
        np.save(folder / "strip.npy", strip)
        write_json(folder / "timing.json", {"seconds": seconds, "images": len(called), "moves": 2 * found.shape[1],
                                            "device": runtime.describe(), "peak_memory_gb": runtime.peak_memory_gb()})
    scratch.clear()
    print(f"{name}: {len(chosen)} of {found.shape[1]} coordinates chosen by {len(called)} slices in {seconds:.0f} s; "
          f"{runtime.describe()}")


@torch.no_grad()
def encoded(generator: nn.Module, images: np.ndarray, logits: Tensor, batch_size: int, runtime: Runtime) -> Styles:
    """Styles of slices (N,H,W), whose logits (N,) are the classifier's."""
    parts = []
    for start in range(0, len(images), batch_size):
        part = torch.as_tensor(images[start : start + batch_size], device=runtime.device).float().unsqueeze(1)
        own = logits[start : start + batch_size].to(runtime.device)
        parts.append(generator.encoded(part, torch.sigmoid(own)))  # (B,1,H,W), (B,)
    return Styles.joined(parts)


def measure(generator: nn.Module, classifier: nn.Module, styles: Styles, extremes: Extremes, params: AttributeParams,
            scratch: Scratch, runtime: Runtime) -> tuple[Tensor, Tensor, float]:
    """Effects (N,C,2) and logits (N,) of the images with these styles, on the CPU, and the seconds of a killed run
    that this one went on from. `scratch` keeps whole images."""
    count, found, logits, seconds = len(styles.space[0]), [], [], 0.0
    if state := scratch.load():
        found, logits, seconds = list(state["effects"]), list(state["logits"]), state["seconds"]
    ticker, started = Ticker(f"find {scratch.folder.name}", count, len(found)), now(runtime)
    saved = time.monotonic()
    while len(found) < count:
        one = styles.rows(torch.tensor([len(found)], device=runtime.device))
        moved, logit = effects(generator.synthesis, classifier, one, extremes, params.shift, params.batch_size)
        found.append(moved.cpu())
        logits.append(logit.cpu())
        ticker.tick(len(found), greatest=float(moved.max()))
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            scratch.save({"effects": torch.stack(found), "logits": torch.stack(logits), "step": len(found),
                          "seconds": seconds + now(runtime) - started})
            saved = time.monotonic()
    return torch.stack(found), torch.stack(logits), seconds


if __name__ == "__main__":
    stage_main(main)

"""Stage: slices + StylEx's generator + classifier -> attributes that sway the classifier (`--generator stylegan`)."""

from __future__ import annotations

import argparse
from typing import cast

import numpy as np
import torch

from flipside.classifiers.networks.backbones import load_classifier, predict_logits
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch
from flipside.core.files import atomic_folder, file_digest, write_json
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.runtime import now
from flipside.core.store import SliceStore
from flipside.generators.base.loading import load_generator
from flipside.methods.latent.attributes import (
    AttributeParams,
    Extremes,
    StyleGenerator,
    choose_slices,
    encode_slices,
    measure_all_effects,
    picture_attributes,
    select_moves,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `attributes` in params.yaml")
    name = parser.parse_args().generator

    # Parameters, slices, frozen networks.
    params, seed = load_section(f"attributes.{name}", AttributeParams), load_value("seed", int)
    announce(f"find_attributes {name}", seed=seed, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open(paths.SLICES)
    source = paths.generator(name)
    generator = cast(StyleGenerator, load_generator(source, runtime))
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    scratch = Scratch(f"find_attributes/{name}", [params.images, params.shift, seed, store.fingerprint, *(
        file_digest(f"{model}/model.safetensors") for model in (source, paths.CLASSIFIER))])

    # Effects of all moves in slices called abnormal, the choice among them, and what the chosen ones look like. How far
    # a move goes follows from all training slices.
    began = now(runtime)
    rows = store.rows("train")
    logits = predict_logits(classifier, store.images[rows], runtime)
    tried, n_called = choose_slices(logits.numpy(), params.images, seed)
    if n_called == 0:
        print("the classifier calls no training slice abnormal: the moves are tried in those nearest to it")
    whole = encode_slices(generator, store.images[rows], logits, params.batch_size, runtime)
    extremes, styles = Extremes.of(whole), whole.rows(torch.as_tensor(tried, device=runtime.device))
    effects, base, seconds_before = measure_all_effects(generator, classifier, styles, extremes, params, scratch,
                                                        runtime)
    chosen, stable = select_moves(effects, base, params)
    attributes = extremes.attributes(chosen, params.shift)
    table, strip = picture_attributes(generator, attributes, styles, effects, base, chosen, params.batch_size)
    table = table.assign(example=store.index["slice_id"].to_numpy()[rows[tried[table["example"].to_numpy()]]],
                         n_images=len(tried), n_called=n_called, n_stable=int(stable.sum()))
    seconds = seconds_before + now(runtime) - began

    # Outputs.
    attributes.write(paths.attributes(name), source)
    with atomic_folder(paths.training_report(f"{name}_attributes")) as folder:
        table.to_csv(folder / "attributes.csv", index=False)
        np.save(folder / "strip.npy", strip)
        write_json(folder / "parameters.json", params.model_dump(mode="json"))
        write_json(folder / "timing.json", {"seconds": seconds, "images": len(tried), "moves": 2 * effects.shape[1],
                                            "device": runtime.describe(), "peak_memory_gb": runtime.peak_memory_gb()})
    scratch.clear()
    print(f"{name}: {len(chosen)} of {effects.shape[1]} coordinates chosen by {len(tried)} slices in {seconds:.0f} s; "
          f"{runtime.describe()}")


if __name__ == "__main__":
    stage_main(main)

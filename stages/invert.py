"""Stage: slices + generator + encoder -> the blobs of every explained slice (`--generator blobgan`)."""

from __future__ import annotations

import argparse
from typing import cast

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, load_weights, read_description
from flipside.core.files import file_digest
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.base.loading import load_generator
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.methods.base.parameters import ExplainParams
from flipside.methods.latent.blob_generator import BlobGenerator
from flipside.methods.latent.inversion import InversionParams, invert_slices
from flipside.methods.latent.latents import write_latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `inversions` in params.yaml")
    name = parser.parse_args().generator

    # Parameters, slices, frozen networks.
    params = load_section(f"inversions.{name}", InversionParams)
    splits, seed = load_section("explain", ExplainParams).splits, load_value("seed", int)
    announce(f"invert {name}", seed=seed, splits=splits, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open(paths.SLICES)
    source, encoder_source = paths.generator(name), paths.encoder(name)
    generator = cast(BlobGenerator, load_generator(source, runtime))
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    architecture = read_description(encoder_source)["architecture"]
    encoder = runtime.place(load_weights(encoder_source, build_encoder(architecture)))

    # Inversion, a batch of slices at a time.
    rows = store.rows(tuple(splits))
    observer = observer_of(classifier)
    scratch = Scratch(f"invert/{name}", [params.model_dump(), seed, splits, store.fingerprint, observer.name, *(
        file_digest(f"{model}/model.safetensors") for model in (source, encoder_source, paths.CLASSIFIER))])
    layout, table, seconds = invert_slices(generator, encoder, observer, store, rows, params, runtime, scratch)

    # Outputs.
    index = store.index.iloc[rows][["slice_id", "split"]].reset_index(drop=True).assign(row=rows, **table)
    kept = float(((index["f_x"] >= 0.5) == (index["f_reconstruction"] >= 0.5)).mean())
    error = float(index["absolute_error"].mean())
    timing = {"seconds": seconds, "images": len(rows), "seconds_per_image": seconds / len(rows), "decision_kept": kept,
              "absolute_error": error, "perceptual": observer.name, "device": runtime.describe(),
              "peak_memory_gb": runtime.peak_memory_gb()}
    write_latents(paths.latents(name), layout, index, timing, source)
    scratch.clear()
    print(f"{name}: {len(rows)} slices inverted, mean absolute error {error:.4f}, decision kept on {kept:.1%}, "
          f"{seconds / len(rows):.3f} s per slice; {runtime.describe()}")


if __name__ == "__main__":
    stage_main(main)

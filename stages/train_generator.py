"""Stage: slices + frozen classifier -> a trained generator (`--generator coin`)."""

from __future__ import annotations

import argparse
import functools
import importlib

from flipside.classifiers.backbones import load_classifier
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, read_description, save_model
from flipside.core.files import atomic_folder, write_json
from flipside.core.history import write_history
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.nn.encoding import perceptual_name
from flipside.generators.nn.logistic_gan import LogisticParams
from flipside.generators.training.adversarial import train_adversarial
from flipside.generators.training.batches import TrainingSlices

CLASSIFIER = "models/classifiers/classifier"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `generators` in params.yaml")
    name = parser.parse_args().generator

    # Parameters.
    method = importlib.import_module(f"flipside.generators.{name}")
    params = load_section(f"generators.{name}", method.GeneratorParams)
    seed = load_value("seed", int) + params.seed_offset
    announce(f"train_generator {name}", seed=seed, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open("data/slices")
    classifier = load_classifier(CLASSIFIER, runtime)

    # Training on the training split's images.
    data = TrainingSlices.from_store(store, classifier, runtime)
    classifier_fingerprint = read_description(CLASSIFIER)["data_fingerprint"], float(data.logits.cpu().sum())
    perceptual = {"perceptual": perceptual_name()} if issubclass(method.GeneratorParams, LogisticParams) else {}
    scratch = Scratch(f"train_generator/{name}", [params.model_dump(), seed, store.fingerprint, classifier_fingerprint,
                                                  perceptual])
    # A method whose training is no game of generator and discriminator brings its own.
    train = getattr(method, "train", functools.partial(train_adversarial, method))
    generator, history, seconds = train(params, data, seed, scratch)
    steps = int(history[-1]["step"])

    # Outputs.
    with atomic_folder(f"reports/training/{name}") as curves:
        write_history(curves, history, step="step")
        write_json(curves / "timing.json", {"seconds": seconds, "steps": steps, "device": runtime.describe()})
    save_model(f"models/generators/{name}", generator, {
        "architecture": method.architecture_of(params, classifier), "parameters": params.model_dump(), "seed": seed,
        "data_fingerprint": store.fingerprint, "final": history[-1], **perceptual,
    })
    scratch.clear()
    print(f"{name}: {steps} steps of {params.batch_size} in {seconds:.0f} s; {runtime.describe()}, "
          f"peak memory {runtime.peak_memory_gb():.2f} GB")


if __name__ == "__main__":
    stage_main(main)

"""Stage: slices + frozen classifier -> a trained generator (`--generator coin`)."""

from __future__ import annotations

import argparse

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths, ranks
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, read_description, save_model
from flipside.core.files import atomic_folder, write_json
from flipside.core.history import write_history
from flipside.core.params import Fraction, announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import find_generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `generators` in params.yaml")
    name = parser.parse_args().generator

    # Parameters.
    kind = find_generator(name)
    params = load_section(f"generators.{name}", kind.Params)
    seed = load_value("seed", int) + params.seed_offset
    lesion_fraction = load_value("lesion_fraction", Fraction)
    runtime = runtimes.start_training(seed, params.batch_size)
    if ranks.is_writer():
        announce(f"train_generator {name}", seed=seed, lesion_fraction=lesion_fraction, **{name: params})

    # Training on the training split's images.
    store = SliceStore.open(paths.SLICES)
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    data = TrainingSlices.from_store(store, classifier, runtime)
    classifier_fingerprint = (read_description(paths.CLASSIFIER)["data_fingerprint"], float(data.logits.cpu().sum()))
    generator = kind(params, classifier, lesion_fraction)
    scratch = Scratch(f"train_generator/{name}", [params.model_dump(), lesion_fraction, seed, store.fingerprint,
                                                  classifier_fingerprint, generator.details()])
    trained = generator.train(data, seed, scratch)
    ranks.end()
    steps = int(trained.history[-1]["step"])

    # Outputs.
    with atomic_folder(paths.training_report(name)) as report:
        write_history(report, trained.history, step="step")
        write_json(report / "parameters.json", params.model_dump(mode="json"))
        write_json(report / "timing.json", {"seconds": trained.seconds, "steps": steps, "device": runtime.describe()})
    save_model(paths.generator(name), trained.network, {
        "architecture": kind.architecture_of(params, classifier), "parameters": params.model_dump(),
        "lesion_fraction": lesion_fraction, "seed": seed,
        "data_fingerprint": store.fingerprint, "final": trained.history[-1], **generator.details(),
    })
    scratch.clear()
    print(f"{name}: {steps} steps of {params.batch_size} in {trained.seconds:.0f} s; {runtime.describe()}, "
          f"{runtime.describe_peak_memory()}")


if __name__ == "__main__":
    stage_main(main)

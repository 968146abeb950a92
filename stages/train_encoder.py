"""Stage: slices + trained generator + frozen classifier -> the generator's encoder (`--generator blobgan`)."""

from __future__ import annotations

import argparse

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths, ranks
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, read_description, save_model
from flipside.core.files import atomic_folder, file_digest, write_json
from flipside.core.history import write_history
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import load_generator
from flipside.generators.codes.reconstruction import observer_of
from flipside.generators.encoders.training import EncoderParams, EncoderTraining, train_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `encoders` in params.yaml")
    name = parser.parse_args().generator

    # Parameters, slices, frozen networks.
    params = load_section(f"encoders.{name}", EncoderParams)
    seed = load_value("seed", int) + params.seed_offset
    runtime = runtimes.start_training(seed, *(
        phase.batch_size for phase in (params.pretrain, params.finetune) if phase.steps))
    if ranks.is_writer():
        announce(f"train_encoder {name}", seed=seed, **{name: params})
    store = SliceStore.open(paths.SLICES)
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    source = paths.generator(name)
    generator, architecture = load_generator(source, runtime), read_description(source)["architecture"]

    # Training.
    training = EncoderTraining.of(generator, architecture, observer_of(classifier), params)
    scratch = Scratch(f"train_encoder/{name}", [params.model_dump(), seed, store.fingerprint, training.observer.name,
                                                file_digest(f"{source}/model.safetensors"),
                                                file_digest(f"{paths.CLASSIFIER}/model.safetensors")])
    data = TrainingSlices.from_store(store, classifier, runtime)
    trained = train_encoder(training, data, seed, scratch)
    ranks.end()

    # Outputs.
    with atomic_folder(paths.training_report(f"{name}_encoder")) as report:
        write_history(report, trained.history, step="step")
        write_json(report / "parameters.json", params.model_dump(mode="json"))
        write_json(report / "timing.json", {
            "seconds": trained.seconds, "steps": params.pretrain.steps + params.finetune.steps,
            "device": runtime.describe(), "perceptual": training.observer.name})
    save_model(paths.encoder(name), trained.network, {
        "architecture": architecture, "parameters": params.model_dump(), "seed": seed,
        "data_fingerprint": store.fingerprint, "perceptual": training.observer.name,
        "final": trained.history[-1] if trained.history else {},
    })
    scratch.clear()
    print(f"{name}: encoder trained in {trained.seconds:.0f} s with {training.observer.name}; {runtime.describe()}, "
          f"{runtime.describe_peak_memory()}")


if __name__ == "__main__":
    stage_main(main)

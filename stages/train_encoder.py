"""Stage: slices + trained generator + frozen classifier -> the generator's encoder (`--generator blobgan`)."""

from __future__ import annotations

import argparse

from flipside.classifiers.backbones import load_classifier
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, read_description, save_model
from flipside.core.files import atomic_folder, file_digest, write_json
from flipside.core.history import write_history
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.nn.encoding import EncoderParams, EncoderTraining, build_encoder, observer_of, train_encoder
from flipside.generators.training.batches import TrainingSlices
from flipside.generators.training.loading import load_generator

CLASSIFIER = "models/classifiers/classifier"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `encoders` in params.yaml")
    name = parser.parse_args().generator

    # Parameters, slices, frozen networks.
    params = load_section(f"encoders.{name}", EncoderParams)
    seed = load_value("seed", int)
    announce(f"train_encoder {name}", seed=seed, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open("data/slices")
    classifier = load_classifier(CLASSIFIER, runtime)
    source = f"models/generators/{name}"
    generator, architecture = load_generator(source, runtime), read_description(source)["architecture"]

    # Training: on from the encoder that learnt with the generator, where there is one.
    encoder = build_encoder(architecture)
    if architecture["joint"]:
        encoder.load_state_dict(generator.encoder.state_dict())
    training = EncoderTraining(encoder, generator, observer_of(classifier), params)
    scratch = Scratch(f"train_encoder/{name}", [params.model_dump(), seed, store.fingerprint, training.observer.name,
                                                file_digest(f"{source}/model.safetensors"),
                                                file_digest(f"{CLASSIFIER}/model.safetensors")])
    data = TrainingSlices.from_store(store, classifier, runtime)
    encoder, history, seconds = train_encoder(training, data, seed, scratch)

    # Outputs.
    with atomic_folder(f"reports/training/{name}_encoder") as curves:
        write_history(curves, history, step="step")
        write_json(curves / "timing.json", {"seconds": seconds, "steps": params.pretrain.steps + params.finetune.steps,
                                            "device": runtime.describe(), "perceptual": training.observer.name})
    save_model(f"models/encoders/{name}", encoder, {
        "architecture": architecture, "parameters": params.model_dump(), "seed": seed,
        "data_fingerprint": store.fingerprint, "perceptual": training.observer.name,
        "final": history[-1] if history else {},
    })
    scratch.clear()
    print(f"{name}: encoder trained in {seconds:.0f} s with {training.observer.name}; {runtime.describe()}, "
          f"peak memory {runtime.peak_memory_gb():.2f} GB")


if __name__ == "__main__":
    stage_main(main)

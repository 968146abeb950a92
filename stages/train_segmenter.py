"""Stage: slices + the mask network `flip_mask` + frozen classifier -> a segmenter taught by pseudo-masks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths, ranks
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch, read_description
from flipside.core.files import file_digest
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import load_generator
from flipside.segmenters.labels import Labels, PseudoMaskParams, describe, pseudo_labels
from flipside.segmenters.networks import build_segmenter, lesion_probability, mean_over_flip
from flipside.segmenters.training import SegmenterParams, train_segmenter
from flipside.segmenters.writing import write_segmenter

NAME = "flip_mask"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, slices, frozen networks.
    params, masks = load_section("segmenter", SegmenterParams), load_section("pseudo_masks", PseudoMaskParams)
    seed = load_value("seed", int) + params.seed_offset
    runtime = runtimes.start_training(seed, params.batch_size)
    if ranks.is_writer():
        announce(f"train_segmenter {NAME}", seed=seed, segmenter=params, pseudo_masks=masks)
    store = SliceStore.open(paths.SLICES)
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    source = paths.generator(NAME)
    teacher: Any = load_generator(source, runtime)  # a MaskTeacher
    architecture = {
        "student": {"inputs": store.channels, "channels": params.channels, "outputs": 1},
        "teacher": {"generator": NAME, "architecture": read_description(source)["architecture"]}}
    networks = build_segmenter(architecture)
    networks["teacher"] = teacher
    data = TrainingSlices.from_store(store, classifier, runtime)
    scratch = Scratch(f"train_segmenter/{NAME}", [params.model_dump(), masks.model_dump(), seed, store.fingerprint,
                                                  file_digest(f"{source}/model.safetensors"),
                                                  file_digest(f"{paths.CLASSIFIER}/model.safetensors")])

    # Pseudo-masks of the mask network, in later rounds of the student.
    def labels_of(probability: Callable[[Tensor], Tensor]) -> Labels:
        labels = pseudo_labels(data, teacher, probability, masks)
        print(f"{NAME}: {describe(labels, data)}", flush=True)
        return labels

    def relabel(student: nn.Module) -> Labels:
        return labels_of(partial(lesion_probability, student, runtime=runtime))

    first = labels_of(partial(mean_over_flip, lambda images: teacher.parts(images)[0]))
    trained = train_segmenter(networks["student"], data, first, params, seed, scratch, masks.transplants, masks.rounds,
                              relabel)
    ranks.end()
    networks["student"] = trained.network
    write_segmenter(NAME, networks, architecture, trained, {"segmenter": params, "pseudo_masks": masks},
                    {"seed": seed, "data_fingerprint": store.fingerprint}, runtime)
    scratch.clear()


if __name__ == "__main__":
    stage_main(main)

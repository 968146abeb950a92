"""Stage: slices + LESION MASKS of the training split -> the segmenter `supervised`, an upper bound.

No other training reads a lesion mask; nothing but the method `supervised` reads what this one writes.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from flipside.artifacts.truth import open_truth
from flipside.classifiers.networks.backbones import Classifier
from flipside.core import paths, ranks
from flipside.core import runtime as runtimes
from flipside.core.checkpoint import Scratch
from flipside.core.files import file_digest
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.state import Trained
from flipside.segmenters.labels import Labels
from flipside.segmenters.networks import build_segmenter
from flipside.segmenters.training import SegmenterParams, train_segmenter
from flipside.segmenters.writing import write_segmenter

NAME = "supervised"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    params = load_section("segmenter", SegmenterParams)
    seed = load_value("seed", int) + params.seed_offset
    runtime = runtimes.start_training(seed, params.batch_size)
    if ranks.is_writer():
        announce(f"train_supervised {NAME}", seed=seed, segmenter=params)
    store = SliceStore.open(paths.SLICES)
    data = TrainingSlices.from_store(store, Classifier(nn.Identity(), store.channels), runtime)  # it is never asked
    masks = open_truth(paths.TRUTH, store.organ.shape)[store.rows("train")] > 0  # (N,H,W)
    lesion = torch.as_tensor(masks, device=runtime.device)
    labels = Labels(lesion, torch.zeros_like(lesion), torch.ones(len(lesion), dtype=torch.bool))
    architecture = {"student": {"inputs": store.channels, "channels": params.channels, "outputs": 1}}
    networks = build_segmenter(architecture)

    if lesion.any():
        scratch = Scratch(f"train_supervised/{NAME}", [params.model_dump(), seed, store.fingerprint,
                                                       file_digest(f"{paths.TRUTH}/lesion.npy")])
        trained = train_segmenter(networks["student"], data, labels, params, seed, scratch)
        ranks.end()
        scratch.clear()
    else:
        print(f"{NAME}: {paths.TRUTH} has no lesion mask of a training slice, so there is nothing to learn: it marks "
              "nothing")
        ranks.end()
        trained = Trained(answers_nothing(networks["student"]), [], 0.0)
    networks["student"] = trained.network
    write_segmenter(NAME, networks, architecture, trained, {"segmenter": params},
                    {"seed": seed, "data_fingerprint": store.fingerprint}, runtime)


def answers_nothing(student: nn.Module) -> nn.Module:
    """The network with a probability of 0 everywhere; frozen, in eval mode."""
    head = student.get_submodule("head")
    nn.init.zeros_(head.get_parameter("weight"))
    nn.init.constant_(head.get_parameter("bias"), -100.0)
    return student.eval().requires_grad_(False)


if __name__ == "__main__":
    stage_main(main)

"""Stage: what the classifier says of test slices in which one square after the other is inpainted with healthy tissue.

Major et al. (2020, section 4): that should matter where a lesion was, and nowhere else. Where lesions are is not known
here; the stage check_inpainter sorts the answers.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from flipside.artifacts.probes import ProbeParams, Probes
from flipside.classifiers.backbones import load_classifier, predict_logits
from flipside.core import runtime as runtimes
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.progress import progress
from flipside.core.runtime import Runtime
from flipside.core.store import SliceStore
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import CLASSIFIER
from flipside.scans.pixels import count_in_squares

INPAINTER = "models/generators/impact"
LEAST_ORGAN = 0.25  # share of a square that is organ, for it to be probed


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, networks, slices.
    params = load_section("probe", ProbeParams)
    seed = load_value("seed", int)
    announce("probe_inpainter", seed=seed, probe=params)
    runtime = runtimes.start(seed)
    classifier, inpainter = load_classifier(CLASSIFIER, runtime), load_generator(INPAINTER, runtime)
    store = SliceStore.open("data/slices")
    rows = store.rows("test")
    side, stride = (max(1, round(fraction * min(store.images.shape[1:])))
                    for fraction in (params.hole_fraction, params.stride_fraction))

    # The classifier's answers, before and after.
    slice_ids, parts = store.index["slice_id"].to_numpy()[rows], []
    for row, slice_id in zip(progress(list(rows), "probe"), slice_ids, strict=True):
        corners = probed_squares(np.array(store.organ[row]) > 0, side, stride)
        image = torch.as_tensor(np.array(store.images[row]), device=runtime.device).float()
        logits = inpainted_logits(image, corners, side, inpainter, classifier, runtime)
        parts.append(pd.DataFrame({"slice_id": slice_id, "top": corners[:, 0], "left": corners[:, 1], "side": side,
                                   "logit": logits.numpy()}))
    slices = pd.DataFrame({"slice_id": slice_ids, "logit": predict_logits(classifier, store.images[rows], runtime)})

    # Outputs.
    holes = pd.concat(parts)
    Probes(slices, holes).write()
    print(f"{len(holes)} squares of {side} pixels inpainted in {len(rows)} test slices; {runtime.describe()}")


def probed_squares(organ: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Upper left corners (K,2) of the squares on a lattice that are organ (H,W bool) to at least `LEAST_ORGAN`.

    Where none is, those with the most organ; without organ all squares.
    """
    rows, columns = (np.arange(0, length - side + 1, stride) for length in organ.shape)
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    share = count_in_squares(organ, side)[corners[:, 0], corners[:, 1]] / side**2  # (K,)
    return corners[share >= min(LEAST_ORGAN, share.max())]


@torch.no_grad()
def inpainted_logits(image: Tensor, corners: np.ndarray, side: int, inpainter: nn.Module, classifier: nn.Module,
                     runtime: Runtime, batch_size: int = 64) -> Tensor:
    """Logits (K,) on the CPU of one image (H,W) in [-1,1] with each square at corners (K,2) inpainted."""
    logits = []
    for start in range(0, len(corners), batch_size):
        part = corners[start : start + batch_size]
        holes = torch.zeros(len(part), 1, *image.shape, device=image.device)
        for hole, (top, left) in zip(holes, part, strict=True):
            hole[0, top : top + side, left : left + side] = 1
        with runtime.autocast():
            logits.append(classifier(inpainter.inpaint(image.expand_as(holes), holes)).float().cpu())
    return torch.cat(logits)


if __name__ == "__main__":
    stage_main(main)

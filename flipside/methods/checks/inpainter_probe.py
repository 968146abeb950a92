"""What the classifier says of a slice in which one square after the other is inpainted (Major et al. 2020, section 4).

That should matter where a lesion was, and nowhere else.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flipside.artifacts.probes import ProbeParams, Probes
from flipside.classifiers.networks.backbones import Classifier, predict_logits
from flipside.core.progress import progress
from flipside.core.runtime import Runtime
from flipside.core.store import SliceStore, as_channels
from flipside.scans.pixels import count_in_squares

LEAST_ORGAN = 0.25  # share of a square that is organ, for it to be inpainted


class Inpainter(Protocol):
    """What is called of the trained inpainter."""

    def inpaint(self, images: Tensor, holes: Tensor) -> Tensor: ...  # (B,C,H,W) in [-1,1], (B,1,H,W) in [0,1]


def probe_slices(store: SliceStore, rows: np.ndarray, inpainter: Inpainter, classifier: Classifier,
                 params: ProbeParams, runtime: Runtime) -> Probes:
    """The classifier's logits of the slices at the store's positions `rows` (N,), as they are and with each square
    inpainted."""
    side, stride = (max(1, round(fraction * min(store.sides)))
                    for fraction in (params.hole_fraction, params.stride_fraction))
    slice_ids, parts = store.index["slice_id"].to_numpy()[rows], []
    for row, slice_id in zip(progress(list(rows), "probe"), slice_ids, strict=True):
        corners = choose_squares(np.array(store.organ[row]) > 0, side, stride)
        image = as_channels(torch.as_tensor(store.images[[row]], device=runtime.device).float())  # (1,C,H,W)
        logits = predict_inpainted(image, corners, side, inpainter, classifier, runtime)
        parts.append(pd.DataFrame({"slice_id": slice_id, "top": corners[:, 0], "left": corners[:, 1], "side": side,
                                   "logit": logits.numpy()}))
    slices = pd.DataFrame({"slice_id": slice_ids, "logit": predict_logits(classifier, store.images[rows], runtime)})
    return Probes(slices, pd.concat(parts))


def choose_squares(organ: np.ndarray, side: int, stride: int) -> np.ndarray:
    """Upper left corners (K,2) of the squares on a lattice that are organ (H,W bool) to at least `LEAST_ORGAN`.

    Where none is, those with the most organ; without organ all squares.
    """
    rows, columns = (np.arange(0, length - side + 1, stride) for length in organ.shape)
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    share = count_in_squares(organ, side)[corners[:, 0], corners[:, 1]] / side**2  # (K,)
    return corners[share >= min(LEAST_ORGAN, share.max())]


@torch.no_grad()
def predict_inpainted(image: Tensor, corners: np.ndarray, side: int, inpainter: Inpainter, classifier: Classifier,
                      runtime: Runtime, batch_size: int = 64) -> Tensor:
    """Logits (K,) on the CPU of one image (1,C,H,W) in [-1,1] with each square at corners (K,2) inpainted."""
    logits = []
    for start in range(0, len(corners), batch_size):
        part = corners[start : start + batch_size]
        holes = torch.zeros(len(part), 1, *image.shape[2:], device=image.device)
        for hole, (top, left) in zip(holes, part, strict=True):
            hole[0, top : top + side, left : left + side] = 1
        with runtime.autocast():
            logits.append(classifier(inpainter.inpaint(image.expand(len(part), -1, -1, -1), holes)).float().cpu())
    return torch.cat(logits)

"""Does a run's classifier call slices abnormal by their lesions, or by something else on them?

`python -m benchmarks.filled_lesions` in the folder of a finished run with lesion masks, or with `--run`. Each lesion
and a margin around it, so that no bright edge stays, are filled smoothly from what lies around them (biharmonic
inpainting). If a slice is still called abnormal, the classifier hears something else on it, such as a shortcut, or it
hears the filling.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.artifacts.truth import open_truth
from flipside.classifiers.networks.backbones import load_classifier, predict_probabilities
from flipside.core import paths
from flipside.core.progress import progress
from flipside.core.runtime import Runtime, RuntimeParams
from flipside.core.store import SliceStore
from flipside.masks.extraction.thresholds import lesion_rows

MARGIN = 3 / 64  # around a lesion, as a share of the slice's height
LARGEST = 0.5  # share of a slice that is filled at most; others are left out


def fill(image: np.ndarray, lesion: np.ndarray) -> np.ndarray | None:
    """A slice (H,W) or (C,H,W) in [-1,1] without its lesion (H,W) bool; None where that is too much of it."""
    hole = ndimage.binary_dilation(lesion, iterations=round(MARGIN * lesion.shape[0]))
    if hole.mean() > LARGEST:
        return None
    filled = inpaint_biharmonic(image.astype(np.float32), hole, channel_axis=None if image.ndim == 2 else 0)
    return np.clip(filled, -1, 1).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("."), help="a finished run")
    with contextlib.chdir(parser.parse_args().run):
        store = SliceStore.open(paths.SLICES)
        truth = open_truth(paths.TRUTH, store.organ.shape)
        runtime = Runtime(RuntimeParams(device="auto", precision="float32", threads=0))
        classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
        for split in ("val", "test"):
            ill = lesion_rows(truth, store.index, split)
            filled = {row: image for row in progress(ill, f"fill {split}")
                      if (image := fill(store.images[row], truth[row] > 0)) is not None}

            def called(images: np.ndarray) -> np.ndarray:
                return predict_probabilities(classifier, images, runtime) >= CALLED_ABNORMAL

            before, after = called(store.images[[*filled]]), called(np.stack([*filled.values()]))
            healthy = called(store.images[(store.index["split"] == split) & (store.index["label"] == 0)])
            print(f"{split}: {before.mean():.3f} of {len(before)} lesion slices are called abnormal; of these "
                  f"{after[before].mean():.3f} still with the lesion filled ({len(ill) - len(filled)} too large); of "
                  f"{len(healthy)} healthy slices {healthy.mean():.3f}")


if __name__ == "__main__":
    main()

"""Stage: slices + lesion masks -> patches labelled lesion or background, as a slice store (data/patches).

STRONG SUPERVISION, which no stage of the default pipeline has: it exists where `strong_supervision` asks for it.
"""

from __future__ import annotations

import argparse

import numpy as np

from flipside.artifacts.truth import open_truth
from flipside.cohort.patches import PatchError, PatchParams, choose_patches
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.progress import progress
from flipside.core.store import SliceStore, write_store

OUTPUT = "data/patches"
SPLITS = ("train", "val")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, slices, truth.
    params = load_section("mass_patches", PatchParams)
    seed = load_value("seed", int)
    announce("cut_patches", seed=seed, mass_patches=params)
    store = SliceStore.open("data/slices")
    lesion = open_truth("data/truth", store.organ.shape)
    side = max(1, round(params.side_fraction * min(store.sides)))

    # Where the patches are, then their pixels.
    sources, corners, kinds = [], [], []
    for row in progress(list(store.rows(SPLITS)), "choose patches"):
        if store.index["label"].iloc[row] == 1 and not lesion[row].any():
            continue  # its lesion vanished in the resize: what is background there is unknown
        found, kind = choose_patches(lesion[row], store.organ[row], side, params.per_slice,
                                     np.random.default_rng([seed % 2**32, int(row)]))
        sources += [row] * len(found)
        corners += found.tolist()
        kinds += kind.tolist()
    index = store.index.iloc[sources].reset_index(drop=True)
    number = index.groupby("slice_id").cumcount().astype(str)
    index = index.assign(slice_id=index["slice_id"] + ":m" + number, label=np.asarray(kinds, int))
    counts = {split: {"patches": len(part), "on_lesion": int(part["label"].sum())}
              for split in SPLITS for part in [index[index["split"] == split]]}
    for split, count in counts.items():
        if not 0 < count["on_lesion"] < count["patches"]:
            raise PatchError(f"{count['patches']} patches of {side} pixels fit in the {split} split, "
                             f"{count['on_lesion']} of them on a lesion; both kinds are needed: use a data set with "
                             "lesion masks, or change mass_patches.side_fraction")
    images, organ = (np.stack([stack[row][..., top : top + side, left : left + side]
                               for row, (top, left) in zip(sources, corners, strict=True)])
                     for stack in (store.images, store.organ))  # (K,side,side) or (K,C,side,side), (K,side,side)

    # Outputs.
    write_store(OUTPUT, images, organ, index, {"side": side, "counts": counts})
    print("STRONG SUPERVISION: patches cut with lesion masks, " + ", ".join(
        f"{split} {count['patches']} ({count['on_lesion']} on a lesion)" for split, count in counts.items()))


if __name__ == "__main__":
    stage_main(main)

"""Stage: one method's attribution maps -> the thresholds of every policy, and the masks of the headline's."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL, Explanations
from flipside.artifacts.truth import open_truth
from flipside.core.files import atomic_folder
from flipside.core.params import announce, load_section, stage_main
from flipside.core.row_batches import row_batches
from flipside.core.store import SliceStore
from flipside.masks.extraction.thresholds import (
    HEADLINE,
    POLICIES,
    ChosenRows,
    MaskError,
    MaskParams,
    choose,
    describe,
    lesion_rows,
    read_carried,
    share_curve,
)
from flipside.masks.method_masks import make_masks, maps_to_mark, write_masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, help="a name under `methods` in params.yaml")
    parser.add_argument("--carry-from", metavar="FOLDER", help="folder of another run's masks: its thresholds "
                        "are used, only oracle is chosen here (see flipside/cli/apply.py)")
    arguments = parser.parse_args()
    method = arguments.method

    # Parameters, maps, slices, truth.
    params = load_section("masks", MaskParams)
    announce(f"extract_masks {method}", masks=params, carry_from=arguments.carry_from)
    carried = read_carried(arguments.carry_from, method) if arguments.carry_from else None
    explanations = Explanations.open(f"data/explanations/{method}")
    store = SliceStore.open("data/slices")
    truth = open_truth("data/truth", store.organ.shape)
    rows = store_rows(explanations, store, method)
    index = store.index.iloc[rows].reset_index(drop=True)
    index["called_healthy"] = explanations.index["f_x"].to_numpy() < CALLED_ABNORMAL
    maps = maps_to_mark(explanations, store, rows, params)  # (N,H,W)

    # Thresholds. Truth without a single lesion pixel belongs to a data set without lesion masks.
    annotated = any(truth[part].any() for part in row_batches(truth.shape))
    lesion = ChosenRows(truth, rows) if annotated else None  # (N,H,W), in the explanations' order
    thresholds, curves = choose(maps, lesion, index, params, carried)
    policies = [policy for policy in POLICIES if policy in thresholds]
    if not annotated:
        print(f"data/truth holds no lesion: thresholds of {', '.join(policies)} alone, nothing can choose the others")
    if lesion is not None:
        for split in ("val", "test"):
            labelled = ((index["split"] == split) & (index["label"] == 1)).sum()
            print(f"{split}: {len(lesion_rows(lesion, index, split))} lesion slices of {labelled} labelled abnormal")

    # Outputs.
    folder = Path("data/masks") / method
    with atomic_folder(folder) as partial:
        index[["slice_id", "split"]].to_csv(partial / "index.csv", index=False)
        if lesion is not None and curves is not None:
            curves.to_csv(partial / "sweep.csv", index=False)
            share_curve(maps, lesion, index, params).to_csv(partial / "shares.csv", index=False)
        masks = make_masks(maps, explanations, thresholds[HEADLINE], True, params)
        write_masks(partial, masks, thresholds, params)
    print(f"{folder}: {len(index)} slices, {masks.empty.sum()} called healthy and so without a mask; "
          + ", ".join(f"{name} {describe(cut)}" for name, cut in thresholds.items()))


def store_rows(explanations: Explanations, store: SliceStore, method: str) -> np.ndarray:
    """Position in the store of each explained slice; refuses slices that are unknown, twice there or left out."""
    folder, remedy = f"data/explanations/{method}", f"run `dvc repro explain@{method}`"
    slice_ids = explanations.index["slice_id"]
    if explanations.attribution.shape != (len(slice_ids), *store.sides):
        raise MaskError(f"{folder}: attribution {explanations.attribution.shape} doesn't fit {len(slice_ids)} slices "
                        f"of {store.sides} pixels: {remedy}")
    rows = pd.Index(store.index["slice_id"]).get_indexer(slice_ids)
    wrong = slice_ids[(rows < 0) | slice_ids.duplicated().to_numpy()]
    if len(wrong):
        raise MaskError(f"{folder}/index.csv: {len(wrong)} slices are not in data/slices or stand there twice "
                        f"(first: {wrong.iloc[0]}): {remedy}")
    left_out = np.setdiff1d(store.rows(("val", "test")), rows)
    if len(left_out):
        raise MaskError(f"{folder}/index.csv lacks {len(left_out)} val and test slices of data/slices (first: "
                        f"{store.index['slice_id'].iloc[left_out[0]]}): see explain.splits and {remedy}")
    return rows


if __name__ == "__main__":
    stage_main(main)

"""Draw synthetic anomalies and training copies: data/filtered, data/filtered_truth -> data/slices, data/truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.truth import open_truth, remove_truth, write_truth
from flipside.cohort import anomalies, offline_augmentation, splits
from flipside.cohort import selection as filtering
from flipside.core.files import read_json
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.progress import progress
from flipside.core.store import SliceStore, write_store

FILTERED, FILTERED_TRUTH = Path("data/filtered"), Path("data/filtered_truth")
SLICES, TRUTH = Path("data/slices"), Path("data/truth")


def draws(store: SliceStore, params: anomalies.AnomalyParams, dataset: str, seed: int
          ) -> tuple[pd.DataFrame, list[anomalies.Anomaly | None], dict]:
    """Index of the drawn slices (slice_id gets :d0, :d1, ... with several draws), their anomalies, and the outcomes."""
    present = int((store.index["label"] == 1).sum())
    if present:
        raise anomalies.AnomalyError(f"{present} of {len(store.index)} slices are abnormal already: synthetic "
                                     f"anomalies are for healthy data sets; set datasets.{dataset}.anomalies to false")
    plan, outcomes = anomalies.plan_anomalies(store.organ, list(store.index["slice_id"]), params, seed)
    index = store.index.loc[store.index.index.repeat(params.draws_per_slice)].reset_index(drop=True)
    index["label"] = [int(anomaly is not None) for anomaly in plan]
    if params.draws_per_slice > 1:
        index["slice_id"] += [f":d{position % params.draws_per_slice}" for position in range(len(index))]
    return index, plan, outcomes


def copies(index: pd.DataFrame, sources: np.ndarray) -> pd.DataFrame:
    """Index rows of the training copies; slice_id gets :a1, :a2, ..."""
    copied = index.iloc[sources].reset_index(drop=True)
    number = copied.groupby("slice_id").cumcount() + 1
    return copied.assign(slice_id=copied["slice_id"] + ":a" + number.astype(str))


def main() -> None:
    params = load_section("anomalies", anomalies.AnomalyParams)
    augmentation = load_section("offline_augmentation", offline_augmentation.OfflineAugmentationParams)
    seed = load_value("seed", int)
    announce("draw_anomalies", anomalies=params, offline_augmentation=augmentation, seed=seed)
    store = SliceStore.open(FILTERED)
    lesion = open_truth(FILTERED_TRUTH, store.images.shape)
    filtered = read_json(FILTERED / "manifest.json")

    index, plan, outcomes, repeats = store.index, [None] * len(store.index), {}, 1
    if filtered["anomalies"]:
        index, plan, outcomes = draws(store, params, filtered["dataset"], seed)
        repeats = params.draws_per_slice
    warnings = splits.check_classes(index)
    sources = offline_augmentation.plan_copies(index, seed) if augmentation.enabled else np.empty(0, int)
    drawn = len(index)
    index = pd.concat([index, copies(index, sources)], ignore_index=True)
    counts = filtering.count_by_split(index)
    manifest = {
        "dataset": filtered["dataset"], "window": filtered["window"], "counts": counts, "warnings": warnings,
        "anomalies": {"drawn": bool(filtered["anomalies"]), "draws_per_slice": repeats, "outcomes": outcomes},
        "training_copies": len(sources),
    }

    with filtering.scratch_arrays("draw_anomalies", (len(index), *store.images.shape[1:])) as (images, organ, truth):
        for position, anomaly in enumerate(progress(plan, "slices", total=drawn)):
            source = position // repeats
            image, mask = store.images[source], lesion[source]
            if anomaly is not None:
                image, blob = anomalies.add_anomaly(image, anomaly, params)
                mask = mask | blob
            images[position], organ[position], truth[position] = image, store.organ[source], mask
        for position, source in enumerate(progress(sources, "training copies", total=len(sources)), start=drawn):
            images[position], organ[position], truth[position] = offline_augmentation.augment(
                images[source], organ[source], truth[source], augmentation, seed, index["slice_id"].iloc[position])
        manifest["leakage"] = splits.check_leakage(index, images, filtered["duplicates"]["near_identical"]["members"])
        remove_truth(TRUTH)
        write_store(SLICES, images, organ, index, manifest)
        write_truth(TRUTH, truth)
    print("\n".join([f"{name}: {n}" for name, n in counts.items()] + [f"warning: {warning}" for warning in warnings]))


if __name__ == "__main__":
    stage_main(main)

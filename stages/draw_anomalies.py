"""Stage: synthetic anomalies and training copies; data/filtered* -> data/slices, data/truth, data/clean."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from flipside.artifacts.clean import read_clean, remove_clean, write_clean
from flipside.artifacts.truth import open_truth, remove_truth, write_truth
from flipside.cohort.anomalies import Anomaly, AnomalyParams, add_anomaly, draw_slices
from flipside.cohort.offline_augmentation import OfflineAugmentationParams, augment, name_copies, plan_copies
from flipside.cohort.splits import check_classes, check_leakage, count_by_split
from flipside.core.files import read_json
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.paths import CLEAN, FILTERED, FILTERED_CLEAN, FILTERED_TRUTH, SLICES, TRUTH
from flipside.core.progress import progress
from flipside.core.store import SliceStore, scratch_arrays, write_store


def main() -> None:
    # Parameters, filtered slices, their truth.
    params = load_section("anomalies", AnomalyParams)
    augmentation = load_section("offline_augmentation", OfflineAugmentationParams)
    seed = load_value("seed", int)
    announce("draw_anomalies", anomalies=params, offline_augmentation=augmentation, seed=seed)
    store = SliceStore.open(FILTERED)
    lesion = open_truth(FILTERED_TRUTH, store.organ.shape)
    filtered = read_json(f"{FILTERED}/manifest.json")

    # What is drawn on which slice, and which slices of the training part are copied.
    index, repeats, outcomes = store.index, 1, dict[str, int]()
    plan: list[Anomaly | None] = [None] * len(index)
    if filtered["anomalies"]:
        index, plan, outcomes = draw_slices(index, store.organ, params, filtered["dataset"], seed)
        repeats = params.draws_per_slice
    warnings = check_classes(index)
    sources = plan_copies(index, seed) if augmentation.enabled else np.empty(0, int)
    drawn = len(index)
    index = pd.concat([index, name_copies(index, sources)], ignore_index=True)
    counts = count_by_split(index)
    manifest = {
        "dataset": filtered["dataset"], "window": filtered["window"], "counts": counts, "warnings": warnings,
        "anomalies": {"drawn": bool(filtered["anomalies"]), "draws_per_slice": repeats, "outcomes": outcomes},
        "training_copies": len(sources),
        **{key: filtered[key] for key in ("channels",) if key in filtered},
    }
    tests = index[index["split"] == "test"]
    clean: Iterable[np.ndarray] | None = read_clean(FILTERED_CLEAN, tests["source_slice_id"])
    if clean is None and filtered["anomalies"]:
        undrawn = pd.Index(store.index["slice_id"]).get_indexer(tests["source_slice_id"])
        clean = (store.images[row] for row in undrawn)

    # Outputs.
    with scratch_arrays("draw_anomalies", (len(index), *store.images.shape[1:])) as (images, organ, truth):
        for position, anomaly in enumerate(progress(plan, "slices", total=drawn)):
            source = position // repeats
            image, mask = store.images[source], lesion[source]
            if anomaly is not None:
                image, blob = add_anomaly(image, anomaly, params)
                mask = mask | blob
            images[position], organ[position], truth[position] = image, store.organ[source], mask
        for position, source in enumerate(progress(sources, "training copies", total=len(sources)), start=drawn):
            images[position], organ[position], truth[position] = augment(
                images[source], organ[source], truth[source], augmentation, seed, index["slice_id"].iloc[position])
        manifest["leakage"] = check_leakage(index, images, filtered["duplicates"]["near_identical"]["members"])
        remove_truth(TRUTH)
        remove_clean(CLEAN)
        write_store(SLICES, images, organ, index, manifest)
        write_truth(TRUTH, truth)
    write_clean(CLEAN, [] if clean is None else tests["slice_id"].tolist(), [] if clean is None else clean,
                store.images.shape[1:])
    print("\n".join([f"{name}: {n}" for name, n in counts.items()] + [f"warning: {warning}" for warning in warnings]))


if __name__ == "__main__":
    stage_main(main)

"""Stage: select, label, split and window the extracted slices -> data/filtered and its truth and clean images."""

from __future__ import annotations

import numpy as np

from flipside.artifacts.clean import remove_clean, write_clean
from flipside.artifacts.truth import remove_truth, write_truth
from flipside.cohort.extracted import Extracted
from flipside.cohort.selection import FilterParams, select_slices
from flipside.cohort.splits import check_classes, check_leakage, count_by_split, unused_split
from flipside.cohort.windowing import choose_windows, measure_saturation, window_clean, window_slices, window_text
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.paths import EXTRACTED, FILTERED, FILTERED_CLEAN, FILTERED_TRUTH
from flipside.core.store import INDEX_COLUMNS, scratch_arrays, write_store


def main() -> None:
    # Parameters, extracted slices.
    params = load_section("filter", FilterParams)
    seed = load_value("seed", int)
    announce("split_patients", filter=params, seed=seed)
    extracted = Extracted.open(EXTRACTED)

    # Which slices, in which split, and the windows for their intensities.
    selection = select_slices(extracted, params, seed)
    rows, index = selection.rows, selection.index
    warnings = unused_split(extracted.scans, params.use_given_split)
    warnings += [] if extracted.manifest["anomalies"] else check_classes(index)
    windows = choose_windows(params, extracted, index)
    saturation, saturated = measure_saturation(params, extracted, windows)
    warnings += saturated
    manifest = {
        **{key: extracted.manifest[key] for key in ("dataset", "anomalies", "lesion_threshold_px")},
        "window": windows.described, "saturation": saturation, "channels": extracted.manifest["channels"],
        "windows_by_scan": windows.told, "counts": count_by_split(index), "warnings": warnings,
        "duplicates": selection.duplicates, "extracted_slices": len(extracted.index),
        "dropped_for_organ_area": selection.dropped_for_organ_area, "dropped": selection.dropped,
        "left_out_patients": selection.left_out_patients,
    }

    # Outputs. Only the store's own columns: lesion areas and class labels stay out of what later stages may read.
    with scratch_arrays("split_patients", (len(rows), *extracted.images.shape[1:])) as arrays:
        window_slices(extracted, rows, windows, arrays)
        images, organ, lesion = arrays
        manifest["leakage"] = check_leakage(index, images, selection.duplicates["near_identical"]["members"])
        remove_truth(FILTERED_TRUTH)
        remove_clean(FILTERED_CLEAN)
        write_store(FILTERED, images, organ, index[INDEX_COLUMNS], manifest)
        write_truth(FILTERED_TRUTH, lesion)
    tests = np.flatnonzero(index["split"] == "test") if extracted.clean is not None else np.empty(0, int)
    write_clean(FILTERED_CLEAN, index["slice_id"].iloc[tests].tolist(), window_clean(extracted, rows[tests], windows),
                extracted.images.shape[1:])
    print(f"window {window_text(windows.described)}, {saturation['black']:.1%} of the foreground black, "
          f"{saturation['white']:.1%} white; {selection.dropped_for_organ_area} slices dropped for organ area, "
          f"{len(selection.dropped)} as copies\n" + "\n".join(f"{name}: {n}" for name, n in manifest["counts"].items()))
    for warning in warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    stage_main(main)

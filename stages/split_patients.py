"""Keep, label, split and window the extracted slices: data/extracted -> data/filtered, data/filtered_truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.truth import remove_truth, write_truth
from flipside.cohort import duplicates, splits
from flipside.cohort import selection as filtering
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import INDEX_COLUMNS, write_store

EXTRACTED, FILTERED, TRUTH = Path("data/extracted"), Path("data/filtered"), Path("data/filtered_truth")


def drop_copies(extracted: filtering.Extracted, rows: np.ndarray, labels: np.ndarray, given: np.ndarray, distance: int
                ) -> tuple[np.ndarray, dict[str, int], dict, list[dict]]:
    """Positions in `rows` that stay, {patient: group}, the manifest's report, and what was dropped."""
    index = extracted.index.iloc[rows]
    patients = index["patient_id"].to_numpy()
    identical = duplicates.find_identical(index["sha256"].to_numpy(), labels, given)
    reasons = {int(i): "byte-identical copy of another slice" for i in identical.extra}
    reasons |= {int(i): "byte-identical to a slice with another label" for i in identical.conflicting}
    stay = np.setdiff1d(np.arange(len(rows)), list(reasons))
    hashes, informative = duplicates.perceptual_hashes(extracted.images, rows[stay])
    hashed = stay[informative]
    near = hashed[duplicates.near_identical_pairs(hashes[informative], patients[hashed], distance)]  # (P,2) into rows
    groups = duplicates.patient_groups(patients, np.concatenate([near, identical.links()]))
    groups = {patient: groups[patient] for patient in np.unique(patients[stay])}
    report = {"identical": duplicates.duplicate_report(index, identical, given),
              "near_identical": duplicates.group_report(groups, len(near), distance)}
    dropped = [{"slice_id": index["slice_id"].iloc[i], "source_file": index["source_file"].iloc[i], "reason": reason}
               for i, reason in sorted(reasons.items())]
    return stay, groups, report, dropped


def split(index: pd.DataFrame, extracted: filtering.Extracted, groups: dict[str, int], params: filtering.FilterParams,
          seed: int) -> tuple[dict[str, str], list[str]]:
    """{patient: split} and the training patients left out for a near-identical test image."""
    scans = extracted.scans
    volume_column = next((name for name in scans if name.startswith("lesion_volume")), None)
    if volume_column is None:
        raise splits.SplitError(f"{extracted.folder}/scans.csv has no lesion volume: run `dvc repro extract_slices`")
    volumes = scans.groupby("patient_id")[volume_column].sum().to_dict()
    table = splits.patient_table(index, volumes, groups)
    if not params.use_given_split:
        return splits.split_patients(table, params.val_fraction, params.test_fraction, seed), []
    given = scans.groupby("patient_id")["given_split"].agg(set).to_dict()
    return splits.split_given(table, given, params.val_fraction, seed)


def main() -> None:
    params = load_section("filter", filtering.FilterParams)
    seed = load_value("seed", int)
    announce("split_patients", filter=params, seed=seed)

    extracted = filtering.Extracted.open(EXTRACTED)
    manifest = {key: extracted.manifest[key] for key in ("dataset", "anomalies", "lesion_threshold_px")}
    rows = np.flatnonzero(filtering.keep_by_organ(extracted.index, params.min_organ_px))
    labels = filtering.slice_labels(extracted.index.iloc[rows], manifest["lesion_threshold_px"])
    given_split = extracted.scans.set_index("scan_id")["given_split"]
    given = given_split.loc[extracted.index["scan_id"].iloc[rows]].to_numpy()
    stay, groups, report, dropped = drop_copies(extracted, rows, labels, given, params.duplicate_distance)
    rows, index = rows[stay], extracted.index.iloc[rows[stay]].assign(label=labels[stay])
    patient_split, leaked = split(index, extracted, groups, params, seed)
    index["split"] = index["patient_id"].map(patient_split)  # the leaked patients have none
    for row in index[index["split"].isna()].itertuples():
        dropped.append({"slice_id": row.slice_id, "source_file": row.source_file,
                        "reason": "near-identical to an image of the given test part"})
    rows, index = rows[index["split"].notna()], index[index["split"].notna()].reset_index(drop=True)
    index["relative_height"] = filtering.relative_height(index)
    warnings = [] if manifest["anomalies"] else splits.check_classes(index)
    window = params.window
    if window == "fingerprint":
        training_scans = sorted(index.loc[index["split"] == "train", "scan_id"].unique())
        with np.load(EXTRACTED / "foreground.npz") as foreground:
            window = filtering.fingerprint_window(foreground, training_scans, params.fingerprint_percentiles)

    manifest |= {
        "window": list(window), "counts": filtering.count_by_split(index), "warnings": warnings, "duplicates": report,
        "extracted_slices": len(extracted.index),
        "dropped_for_organ_area": len(extracted.index) - len(labels),
        "dropped": dropped, "left_out_patients": leaked,
    }
    with filtering.scratch_arrays("split_patients", (len(rows), *extracted.images.shape[1:])) as arrays:
        filtering.window_slices(extracted, rows, window, arrays)
        images, organ, lesion = arrays
        manifest["leakage"] = splits.check_leakage(index, images, report["near_identical"]["members"])
        # Only the store's own columns: lesion areas and class labels stay out of what later stages may read.
        remove_truth(TRUTH)
        write_store(FILTERED, images, organ, index[INDEX_COLUMNS], manifest)
        write_truth(TRUTH, lesion)
    print(f"window {window[0]:g}..{window[1]:g}; {manifest['dropped_for_organ_area']} slices dropped for organ area, "
          f"{len(dropped)} as copies\n" + "\n".join(f"{name}: {n}" for name, n in manifest["counts"].items()))
    for warning in warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    stage_main(main)

"""One method's numbers from the columns of cases.csv on where it marks and where it changes the image."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.metrics import saliency
from flipside.metrics.summary import CALLED_ABNORMAL, batches, cross_correlation, is_lesion_case

SURFACE = ("hd95_mm_val", "asd_mm_val")
PER_PATIENT = ("iou_val", "dice_val", "pixel_ap", *SURFACE)
CHANGE = ("change_inside", "change_outside", "change_organ", "change_background", "change_inside_share",
          "ncc_change")


def localisation_metrics(cases: pd.DataFrame) -> dict[str, float]:
    """Means over one method's lesion cases, per case and (`*_per_patient`) per patient, and the lesions it detects.

    cases: rows of cases.csv with at least one lesion case. n_missed_val: lesion cases whose mask is empty, which score
    the image's diagonal in SURFACE. lesion_sensitivity: detected lesions / lesions, pooled over the lesion cases.
    lesion_fp_per_slice: components that touch no lesion, per lesion or healthy case; slices whose lesion vanished in
    the resize are left out, nothing on them is surely false. A column without a number, as the overlap of the reference
    method with itself, gives no metric.
    """
    lesion = cases[is_lesion_case(cases)]
    scored = cases["fp_components"].dropna()
    means = [name for name in (*SURFACE, *saliency.COLUMNS) if lesion[name].notna().all()]
    metrics = {name: lesion[name].mean() for name in means} | {
        "per_fixed_raw": lesion["per_raw"].mean(),
        "n_missed_val": int(lesion["missed"].sum()),
        "n_lesions": int(lesion["lesions"].sum()),
        "lesion_sensitivity": lesion["lesions_detected"].sum() / lesion["lesions"].sum(),
        "n_lesion_fp_per_slice": len(scored), "lesion_fp_per_slice": scored.mean(),
    }
    patients = lesion.groupby("patient_id")[list(PER_PATIENT)].mean()
    return metrics | {f"{name}_per_patient": patients[name].mean() for name in PER_PATIENT}


def change_by_region(images: np.ndarray, counterfactuals: np.ndarray, lesion: np.ndarray,
                     organ: np.ndarray) -> dict[str, np.ndarray]:
    """Mean |x - x_cf| on the scale [0,1] in four regions, the lesion's share of the whole change, and the correlation
    of x - x_cf with the lesion, each (N,).

    images, counterfactuals (N,H,W) in [-1,1]; lesion (no slice empty), organ (N,H,W) 0/1. Regions: inside the lesion,
    outside of it, in the organ outside of it, and in the background, outside of both. NaN where a region has no pixel;
    share and correlation of an image that does not change are 0.
    """
    result = {name: np.empty(len(images)) for name in CHANGE}
    for part in batches(images.shape):
        x, x_cf = (np.asarray(stack[part], np.float64) for stack in (images, counterfactuals))
        changed = np.abs(x - x_cf) / 2  # (B,H,W)
        inside, in_organ = np.asarray(lesion[part]) > 0, np.asarray(organ[part]) > 0
        regions = (inside, ~inside, in_organ & ~inside, ~in_organ & ~inside)
        for name, region in zip(CHANGE, regions, strict=False):
            pixels = region.sum(axis=(1, 2))
            total = (changed * region).sum(axis=(1, 2))
            result[name][part] = np.divide(total, pixels, out=np.full(len(total), np.nan), where=pixels > 0)
        total, within = changed.sum(axis=(1, 2)), (changed * inside).sum(axis=(1, 2))
        result["change_inside_share"][part] = np.divide(within, total, out=np.zeros(len(total)), where=total > 0)
        result["ncc_change"][part] = cross_correlation(x - x_cf, inside)
    return result


def change_metrics(cases: pd.DataFrame) -> dict[str, float]:
    """Means of CHANGE over the lesion cases that the classifier calls abnormal, each with its count.

    Organ and background can be absent from a slice, which then counts for neither; a metric of no case is absent.
    change_inside_to_outside: the mean inside over the mean outside; absent where nothing changes outside.
    """
    called = cases[is_lesion_case(cases) & (cases["f_x"] >= CALLED_ABNORMAL)]
    metrics: dict[str, float] = {}
    for name in CHANGE:
        values = called[name].dropna()
        metrics[f"n_{name}"] = len(values)
        if len(values):
            metrics[name] = values.mean()
    if metrics.get("change_outside", 0) > 0 and "change_inside" in metrics:
        metrics["change_inside_to_outside"] = metrics["change_inside"] / metrics["change_outside"]
    return metrics

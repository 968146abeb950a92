"""One method's results by the size of the lesion: small, medium and large thirds of the test split's lesion cases."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.masks.extraction.thresholds import HEADLINE
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.statistics import bootstrap_interval

IOU = f"iou_{HEADLINE}"  # of cases.csv
GROUPS = ("small", "medium", "large")
COLUMNS = ["method", "size_group", "low_mm2", "high_mm2", "n_cases", "n_patients", "iou", "iou_ci_low", "iou_ci_high",
           "pixel_ap"]


def size_edges(areas_mm2: np.ndarray) -> np.ndarray:
    """Least area, both tertiles and greatest area (4,) in mm² of lesion areas (N,) in mm², N >= 1."""
    return np.quantile(areas_mm2, [0, 1 / 3, 2 / 3, 1], method="inverted_cdf")  # an area that some lesion has


def size_group(areas_mm2: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Group 0, 1, 2 (N,) of lesion areas (N,); an area on a tertile belongs to the smaller group."""
    return np.searchsorted(edges[1:3], areas_mm2, side="left")


def subgroups(tables: dict[str, pd.DataFrame], params: EvaluateParams, seed: int) -> pd.DataFrame:
    """Columns COLUMNS, three rows per method: mean label-free IoU with its interval, mean pixel average precision.

    tables: {method: its rows of cases.csv}, all of the same cases, so that the edges are the same for all methods.
    low_mm2 (not included, but for the smallest lesion) and high_mm2 (included) bound a group. Equal areas can leave a
    group empty: its counts are 0 and its numbers missing. A group of one patient has no interval.
    Without a lesion case there is no row.
    """
    rows = []
    for method, cases in tables.items():
        lesion = cases[is_lesion_case(cases)]
        if lesion.empty:
            continue
        edges = size_edges(lesion["lesion_mm2"].to_numpy())
        member = size_group(lesion["lesion_mm2"].to_numpy(), edges)
        for group, name in enumerate(GROUPS):
            own = lesion[member == group]
            row = {"method": method, "size_group": name, "low_mm2": edges[group], "high_mm2": edges[group + 1],
                   "n_cases": len(own), "n_patients": own["patient_id"].nunique(), "iou": own[IOU].mean(),
                   "pixel_ap": own["pixel_ap"].mean()}
            if row["n_patients"] > 1:
                row["iou_ci_low"], row["iou_ci_high"] = bootstrap_interval(
                    own[IOU].to_numpy(), own["patient_id"].to_numpy(), params.bootstrap_samples,
                    params.confidence, seed)
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)

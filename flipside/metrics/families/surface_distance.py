"""How far the borders of mask and lesion lie apart, in mm, label-free and under the policy val."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.masks.extraction.thresholds import COMPARED
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import mean_of_patients
from flipside.metrics.surface import surface_distances

KINDS = {"hd95_mm": ("HD95 mm", "95th percentile of the distance between the borders of mask and lesion"),
         "asd_mm": ("ASD mm", "average symmetric distance between the borders of mask and lesion")}
DISTANCES = [f"{kind}_{policy}" for policy in COMPARED for kind in KINDS]


class SurfaceDistance(Family):
    """Means over lesion slices; a slice whose mask is empty scores the image's diagonal."""

    place = 20
    theme = "Distance of borders"
    needs = ("lesions",)
    metrics = {
        f"{kind}_{policy}{suffix}": Metric(
            f"{label} {policy.replace('_', '-')}{suffix.replace('_', ' ')}",
            f"{meaning}, policy {policy}; an empty mask scores the image's diagonal"
            + ("; mean over each patient's cases, then over patients" if suffix else ""), False,
            "n_patients" if suffix else "", tolerance=1.0 if kind == "hd95_mm" and not suffix else None)
        for policy in COMPARED for suffix in ("", "_per_patient") for kind, (label, meaning) in KINDS.items()}
    counts = {f"n_missed_{policy}": f"lesion slices whose mask is empty, policy {policy}" for policy in COMPARED}
    columns = (*(f"missed_{policy}" for policy in COMPARED),  # 1: the mask is empty
               *DISTANCES)

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        lesion_cases, test = is_lesion_case(cases).to_numpy(), artifacts.test
        for policy in COMPARED:
            masks = artifacts.masks(policy)[lesion_cases]  # (n,H,W)
            cases.loc[lesion_cases, f"missed_{policy}"] = 1.0 - masks.any(axis=(1, 2))
            cases.loc[lesion_cases, [f"{kind}_{policy}" for kind in KINDS]] = np.stack(surface_distances(
                masks, test.lesion[lesion_cases], test.spacing[lesion_cases]), axis=1)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        lesion = cases[is_lesion_case(cases)]
        return {**{f"n_missed_{policy}": int(lesion[f"missed_{policy}"].sum()) for policy in COMPARED},
                **{name: lesion[name].mean() for name in DISTANCES}, **mean_of_patients(lesion, DISTANCES)}

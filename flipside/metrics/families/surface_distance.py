"""How far the borders of mask and lesion lie apart, in mm, under the policy val."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import mean_of_patients
from flipside.metrics.surface import surface_distances

DISTANCES = {"hd95_mm_val": "HD95 mm", "asd_mm_val": "ASD mm"}


class SurfaceDistance(Family):
    """Means over lesion slices; a slice whose mask is empty scores the image's diagonal."""

    place = 20
    theme = "Distance of borders"
    needs = ("lesions",)
    metrics = {
        "hd95_mm_val": Metric("HD95 mm", "95th percentile of the distance between the borders of mask and lesion, "
                              "policy val; an empty mask scores the image's diagonal", False, tolerance=1.0),
        "asd_mm_val": Metric("ASD mm", "average symmetric distance between the borders of mask and lesion, policy "
                             "val; an empty mask scores the image's diagonal", False),
        **{f"{name}_per_patient": Metric(f"{label} per patient", f"{label}: mean over each patient's cases, then over "
                                         "patients", False, "n_patients") for name, label in DISTANCES.items()},
    }
    counts = {"n_missed_val": "lesion slices whose mask is empty, policy val"}
    columns = ("missed",  # 1: the mask is empty
               *DISTANCES)

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        lesion_cases = is_lesion_case(cases).to_numpy()
        masks, test = artifacts.masks("val")[lesion_cases], artifacts.test  # (n,H,W)
        cases.loc[lesion_cases, "missed"] = 1.0 - masks.any(axis=(1, 2))
        cases.loc[lesion_cases, list(DISTANCES)] = np.stack(surface_distances(
            masks, test.lesion[lesion_cases], test.spacing[lesion_cases]), axis=1)
        return {}

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        lesion = cases[is_lesion_case(cases)]
        return {"n_missed_val": int(lesion["missed"].sum()), **{name: lesion[name].mean() for name in DISTANCES},
                **mean_of_patients(lesion, DISTANCES)}

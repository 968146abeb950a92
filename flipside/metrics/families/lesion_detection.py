"""Which single lesions are found, and how many marked components are false, in the label-free masks."""

from __future__ import annotations

import pandas as pd

from flipside.masks.extraction.thresholds import HEADLINE
from flipside.metrics.components import detect
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts


class LesionDetection(Family):
    """False components are counted on lesion slices and on those labelled healthy.

    Slices whose lesion vanished in the resize are left out: nothing on them is surely false.
    """

    place = 30
    theme = "Single lesions and false alarms"
    needs = ("lesions",)
    metrics = {
        "lesion_sensitivity": Metric(
            "lesions found", "share of single lesions (not slices) that one marked component covers with an IoU of at "
            f"least 0.1, policy {HEADLINE}; where masks are cleaned to their largest component, there is one per slice "
            "at most", True, "n_lesions", tolerance=0.02),
        "lesion_fp_per_slice": Metric("false components", "marked components per lesion or healthy slice that touch no "
                                      f"lesion, policy {HEADLINE}", False, "n_lesion_fp_per_slice"),
    }
    counts = {"n_lesions": "single lesions on the lesion slices",
              "n_lesion_fp_per_slice": "lesion slices and slices labelled healthy"}
    columns = ("lesions", "lesions_detected",  # lesion cases only
               "fp_components")  # touch no lesion; empty where the lesion vanished in the resize

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        lesion_cases = is_lesion_case(cases).to_numpy()
        lesions, detected, false = detect(artifacts.masks(HEADLINE), artifacts.test.lesion)
        cases.loc[lesion_cases, "lesions"] = lesions[lesion_cases]
        cases.loc[lesion_cases, "lesions_detected"] = detected[lesion_cases]
        scored = lesion_cases | (cases["label"] == 0).to_numpy()
        cases.loc[scored, "fp_components"] = false[scored]

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        lesion, scored = cases[is_lesion_case(cases)], cases["fp_components"].dropna()
        return {"n_lesions": int(lesion["lesions"].sum()),
                "lesion_sensitivity": lesion["lesions_detected"].sum() / lesion["lesions"].sum(),
                "n_lesion_fp_per_slice": len(scored), "lesion_fp_per_slice": scored.mean()}

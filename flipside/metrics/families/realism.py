"""Distances between the populations of scans and counterfactuals, which the stage measure_realism measures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flipside.core.files import read_json
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts

FRECHET = {"fd_clf": ("FD clf", "Fréchet distance in the explained classifier's pooled features, which a change that "
                                "only fools it makes small too; not FID"),
           **{f"fid_{dims}": (f"FID {dims}", f"Fréchet Inception distance in {dims} features; compares with no other "
                                             "number of features") for dims in (64, 768, 2048)}}
KERNEL = {"kid_clf": ("KD clf", "kernel distance in the explained classifier's pooled features, may be below 0; not "
                                "KID"),
          "kid": ("KID", "kernel Inception distance in 2048 features, may be below 0")}
DISTANCES = FRECHET | KERNEL  # metric -> its label and meaning
# Suffix of their names -> addition to the label, between what they are measured, count of images.
POPULATIONS = {
    "": ("", "counterfactuals of slices called abnormal, from real healthy slices", "n_realism"),
    "_unchanged": (" unchanged", "slices called abnormal as they are, from real healthy slices: what changing nothing "
                                 "gets", "n_realism"),
    "_coin": (" (all slices)", "counterfactuals of all slices, from all slices, as COIN's code measures it: "
                               "near-copies make it small", "n_realism_coin"),
    "_both_directions": (" (both directions)", "counterfactuals to the other side of the decision, from their slices, "
                         "f(x) above evaluate.cv_tau or below 1 minus it; at 0.8 what COIN's code measures of Singla*",
                         "n_realism_both_directions"),
}
NOT_ABNORMAL = "this method makes no slice abnormal, or no test slice qualifies"


class Realism(Family):
    """`*_unchanged`: what changing nothing gets; `*_std`: over the draws of the kernel distance."""

    place = 90
    theme = "Do counterfactuals look like real images?"
    needs = ("counterfactual",)
    n = "n_realism"
    metrics = {
        **{name + suffix: Metric(label + short, f"{meaning}; {populations}", False, n,
                                 tables=() if suffix == "_unchanged" else ("distances",),
                                 absent=NOT_ABNORMAL if suffix == "_both_directions" else "")
           for name, (label, meaning) in DISTANCES.items() for suffix, (short, populations, n) in POPULATIONS.items()
           if suffix in ("", "_unchanged") or name.startswith("fid_")},
        **{f"{name}_std": Metric(f"{label} std", f"{label}: standard deviation over the draws of images", False)
           for name, (label, _) in KERNEL.items()},
    }
    counts = {"n_realism": "slices called abnormal, of which the counterfactuals are taken",
              "n_realism_real": "real slices labelled healthy",
              "n_realism_coin": "all slices of the test split",
              "n_realism_both_directions": "slices with f(x) above evaluate.cv_tau or below 1 minus it"}

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        return read_json(self._file(artifacts.method))["metrics"]

    def reasons(self, method: str) -> dict[str, str]:
        file = self._file(method)
        return read_json(file)["missing"] if file.is_file() else {}

    @staticmethod
    def _file(method: str) -> Path:
        return Path("data/realism") / f"{method}.json"

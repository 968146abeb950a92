"""Whether a map changes when the classifier's weights are shuffled (Adebayo et al. 2018), as found by `explain`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flipside.core import paths
from flipside.core.files import read_json
from flipside.metrics.evaluation import EvaluationError
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts


class Randomisation(Family):
    """Nothing for a method that the check does not apply to; its randomisation.json holds the reason."""

    place = 120
    theme = "Do the classifier's weights matter?"
    n = "n_randomisation"
    metrics = {
        "sanity_randomisation_passed": Metric(
            "weights matter", "1: the map changes when the classifier's weights are shuffled; 0: it does not depend on "
            "them, so it explains nothing", True, tolerance=0.0),
        "randomisation_similarity": Metric("rank corr., shuffled", "|Spearman's rho| of the maps under trained and "
                                           "under shuffled weights of all layers", False),
        "randomisation_ssim": Metric("SSIM, shuffled", "SSIM of the maps under trained and under shuffled weights of "
                                     "all layers", False),
        "randomisation_similarity_head": Metric(
            "rank corr., head shuffled", "|Spearman's rho| of the maps where only the classifier's last, linear layer "
            "is shuffled", False, absent="the classifier's last layer was not shuffled on its own"),
    }
    counts = {"n_randomisation": "slices whose maps were made again with shuffled weights"}

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        found = self._read(artifacts.method)
        if "reason" in found:
            return {}
        return {"sanity_randomisation_passed": int(found["changed"]), "randomisation_similarity": found["spearman_all"],
                "randomisation_ssim": found["ssim_all"], "n_randomisation": found["n_slices"],
                **({"randomisation_similarity_head": found["spearman_head"]} if "spearman_head" in found else {})}

    def reasons(self, method: str) -> dict[str, str]:
        found = self._read(method)
        return dict.fromkeys(self.metrics, found["reason"]) if "reason" in found else {}

    @staticmethod
    def _read(method: str) -> dict:
        file = Path(paths.explanations(method)) / "randomisation.json"
        if not file.is_file():
            raise EvaluationError(f"{file} not found: run `dvc repro explain@{method}`")
        return read_json(file)

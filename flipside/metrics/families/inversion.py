"""How close the inverted test slices are to the scans that a method starts from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.index_tables import read_index
from flipside.metrics.evaluation import EvaluationError
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts


class Inversion(Family):
    """Over all test slices."""

    place = 100
    theme = "How close are the inverted scans?"
    needs = ("counterfactual",)
    n = "n_inversion"
    absent = "this method inverts no slice"
    metrics = {
        "inversion_error": Metric("inversion error", "mean |x - G(x)| of the scans that the method starts from as its "
                                  "generator makes them, scale -1 to 1; all test slices", False),
        "inversion_decision_kept": Metric("inversion keeps decision", "share of the test slices that the classifier "
                                          "calls the same as the generator makes them", True),
    }
    counts = {"n_inversion": "test slices that were inverted"}

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        return inversion_metrics(artifacts.model)


def inversion_metrics(model: str) -> dict[str, float]:
    """Of a method that explains with `data/latents/...`; nothing for one that inverts no slice.

    Raises EvaluationError where the inverted slices are missing.
    """
    if not model.startswith("data/latents/"):
        return {}
    file = Path(model) / "index.csv"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro invert@{Path(model).name}`")
    slices = read_index(file)
    slices = slices[slices["split"] == "test"]
    kept = (slices["f_x"] >= CALLED_ABNORMAL) == (slices["f_reconstruction"] >= CALLED_ABNORMAL)
    return {"inversion_error": slices["absolute_error"].mean(), "inversion_decision_kept": kept.mean(),
            "n_inversion": len(slices)}

"""Who was shown lesion masks: a classifier of the run, or a method that is an upper bound."""

from __future__ import annotations

import pandas as pd

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts

STRONG = ("STRONGLY SUPERVISED: a classifier of this run was pre-trained on patches cut with lesion masks (see "
          "strong_supervision in params.yaml). Its numbers do not compare with those of a run on image-level labels.")
UPPER_BOUND = ("no weakly supervised method but an upper bound, trained with the training split's lesion masks; it "
               "stands in no rank.")


class Supervision(Family):
    place = 140
    theme = "Supervision"
    metrics = {
        "strongly_supervised": Metric("lesion masks seen", "1: a classifier was pre-trained on patches cut with lesion "
                                      "masks (strong_supervision), so the run is no weakly supervised one", False,
                                      absent="no classifier was shown lesion masks"),
    }

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        return {"strongly_supervised": 1} if artifacts.strongly_supervised else {}


class UpperBound(Family):
    """Marks the method that is `evaluate.upper_bound`: tables show it apart and rank it nowhere."""

    place = 145
    theme = "Supervision"
    metrics = {
        "upper_bound": Metric("upper bound", "1: the method was trained with the training split's lesion masks, so it "
                              "is no weakly supervised one and stands in no rank", False,
                              absent="the method was trained without lesion masks"),
    }

    def compare(self, tables: dict[str, pd.DataFrame], params: EvaluateParams,
                seed: int) -> dict[str, dict[str, float]]:
        return {params.upper_bound: {"upper_bound": 1}} if params.upper_bound else {}

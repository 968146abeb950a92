"""Whether the run's classifier was shown lesion masks."""

from __future__ import annotations

import pandas as pd

from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts

STRONG = ("STRONGLY SUPERVISED: a classifier of this run was pre-trained on patches cut with lesion masks (see "
          "strong_supervision in params.yaml). Its numbers do not compare with those of a run on image-level labels.")


class Supervision(Family):
    place = 140
    theme = "Supervision"
    metrics = {
        "strongly_supervised": Metric("lesion masks seen", "1: a classifier was pre-trained on patches cut with lesion "
                                      "masks (strong_supervision), so the run is no weakly supervised one", False,
                                      absent="no classifier was shown lesion masks"),
    }

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        return {"strongly_supervised": 1} if artifacts.strongly_supervised else {}

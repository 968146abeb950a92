"""Whose maps were made elsewhere and read from files."""

from __future__ import annotations

import pandas as pd

from flipside.core import paths
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts

FILES = ("maps or masks that were made elsewhere and read from files. This run does not know what they were shown in "
         "training, lesion masks or test scans among it, nor how long they took.")


class FromFiles(Family):
    """Marks the methods of `foreign_maps`."""

    place = 150
    theme = "Supervision"
    metrics = {
        "from_files": Metric("from files", "1: the maps were made elsewhere and read from files, so what they were "
                             "trained with is not known", False, absent="the maps were made by this run"),
    }

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        return {"from_files": 1} if artifacts.model.startswith(f"{paths.FOREIGN}/") else {}

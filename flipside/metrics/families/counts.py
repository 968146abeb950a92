"""How many test slices, lesion slices, healthy slices and patients all other metrics rest on."""

from __future__ import annotations

import pandas as pd

from flipside.metrics.evaluation import EvaluationError, is_lesion_case
from flipside.metrics.family import Family
from flipside.metrics.method_artifacts import MethodArtifacts


class Counts(Family):
    place = 0
    theme = "Counts"
    metrics = {}
    counts = {
        "n_test": "all slices of the test split",
        "n_cases": "lesion slices: labelled abnormal, with a lesion left after the resize",
        "n_healthy": "slices labelled healthy",
        "n_patients": "patients of the lesion slices",
        "n_lesion_vanished": "slices labelled abnormal whose lesion has no pixel left after the resize; they are in no "
                             "metric of lesion slices",
        "n_val_lesions": "lesion slices of the validation split, on whose masks the policy val chooses its threshold",
    }

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        test = artifacts.test
        counted = {"n_val_lesions": test.val_lesions, **count_lesion_cases(cases)} if test.annotated else {}
        return {"n_test": len(cases), **counted}


def count_lesion_cases(cases: pd.DataFrame) -> dict[str, float]:
    """The counts of a data set with lesion masks; raises EvaluationError where the test split has no lesion slice."""
    lesion = cases[is_lesion_case(cases)]
    if len(lesion) == 0:
        raise EvaluationError("the test split has no slice with a lesion: give the data set more patients, or change "
                              "how it is split or filtered")
    return {"n_cases": len(lesion), "n_healthy": int((cases["label"] == 0).sum()),
            "n_patients": lesion["patient_id"].nunique(),
            "n_lesion_vanished": int(((cases["label"] == 1) & (cases["lesion_px"] == 0)).sum())}

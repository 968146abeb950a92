"""Parameters, errors and populations that all metric families share."""

from __future__ import annotations

import pandas as pd
from pydantic import Field

from flipside.core.params import Params


class EvaluateParams(Params):
    """Section `evaluate`."""

    cv_tau: float = Field(ge=0, lt=1)
    """Threshold of the counterfactual validity: of the cases with f(x) above it, those count whose probability moves
    by more than it."""
    change_bound: float = Field(gt=0)
    """Greatest change of a slice with which a flip counts, as a share of what a Gaussian blur of 3/64 of its side
    changes. Below one half neither that blur nor a constant image can pass, on any data."""
    bootstrap_samples: int = Field(ge=100)
    """Number of times that the patients are drawn anew for each bootstrap interval."""
    confidence: float = Field(gt=0, lt=1)
    """Confidence level of all intervals, such as 0.95."""
    reference_method: str
    """Method that the paired tests and the overlap of maps compare every other one with."""
    upper_bound: str | None = None
    """Method that was trained with lesion masks: it is shown apart, ranked nowhere, and every other one's IoU is also
    given as a share of its IoU. null: there is none."""


class EvaluationError(ValueError):
    """Artifacts of the methods that can't be compared."""


def is_lesion_case(cases: pd.DataFrame) -> pd.Series:
    """Rows of cases.csv that segmentation is scored on: labelled abnormal, with a lesion left after the resize."""
    return (cases["label"] == 1) & (cases["lesion_px"] > 0)

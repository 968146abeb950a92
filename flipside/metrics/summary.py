"""Columns of cases.csv as numbers: means, means of patients, rates, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.statistics import bootstrap_interval, wilson_interval


def mean_with_interval(cases: pd.DataFrame, name: str, params: EvaluateParams, seed: int) -> dict[str, float]:
    """A column's mean with its patient-clustered bootstrap interval; without one where all cases are of one patient."""
    mean = {name: cases[name].mean()}
    if cases["patient_id"].nunique() < 2:
        return mean
    low, high = bootstrap_interval(cases[name].to_numpy(), cases["patient_id"].to_numpy(), params.bootstrap_samples,
                                   params.confidence, seed)
    return mean | {f"{name}_ci_low": low, f"{name}_ci_high": high}


def mean_of_patients(cases: pd.DataFrame, names: Iterable[str]) -> dict[str, float]:
    """`<name>_per_patient`: mean over each patient's cases, then over the patients, who all weigh the same."""
    patients = cases.groupby("patient_id")[list(names)].mean()
    return {f"{name}_per_patient": patients[name].mean() for name in patients}


def rates_with_intervals(rates: dict[str, tuple[pd.Series, pd.Series]], confidence: float) -> dict[str, float]:
    """Each rate (population, success; both bool over the cases) with its count and Wilson's interval.

    Over no case there is no rate: then only the count, 0, is given.
    """
    metrics: dict[str, float] = {}
    for name, (population, success) in rates.items():
        trials, successes = int(population.sum()), int((population & success).sum())
        metrics[f"n_{name}"] = trials
        if trials:
            metrics[name] = successes / trials
            metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"] = wilson_interval(successes, trials, confidence)
    return metrics

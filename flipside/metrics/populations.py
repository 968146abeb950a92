"""The populations that the numbers rest on, the same for every method: how many cases, and which are left out why."""

from __future__ import annotations

import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.metrics.evaluation import is_lesion_case

COLUMNS = ["population", "meaning", "n_slices", "n_patients", "dropped", "reason"]


def population_table(tables: dict[str, pd.DataFrame], annotated: bool, cv_tau: float) -> pd.DataFrame:
    """One row per population of the test split, COLUMNS; `reason` is empty where no case is dropped.

    tables: {method: rows of cases.csv}, checked to be of the same cases; annotated: the data set has lesion masks;
    cv_tau: `evaluate.cv_tau`. `dropped` counts the slices that a reader might expect here and that `reason` keeps out.
    The judge's population is only there where a method makes counterfactuals.
    """
    cases = next(iter(tables.values()))
    everything = pd.Series(True, index=cases.index)
    abnormal, lesion, called = cases["label"] == 1, is_lesion_case(cases), cases["f_x"] >= CALLED_ABNORMAL
    vanished = "labelled abnormal, but no lesion pixel is left after the resize"
    rows = [
        _row(cases, "test", "all slices of the test split", everything, everything, ""),
        _row(cases, "lesion", "labelled abnormal, with a lesion to find: IoU, Dice, pixel AP and their like; a lesion "
             "that the classifier or the method misses counts, with the worst score", lesion, abnormal,
             vanished if annotated else "the data set has no lesion masks"),
        _row(cases, "healthy", "labelled healthy: false-positive area", cases["label"] == 0, cases["label"] == 0, ""),
        _row(cases, "called_abnormal", "called abnormal by the classifier, whatever the label: flipped, L1, SSIM",
             called, everything, "called healthy: there is nothing to flip"),
        _row(cases, "validity", f"f(x) above {cv_tau:g}: counterfactual validity", cases["f_x"] > cv_tau, everything,
             f"f(x) at most {cv_tau:g}: it cannot fall by more than that"),
    ]
    judged = next((table for table in tables.values() if table["judge_x"].notna().any()), None)
    if judged is not None:
        rows.append(_row(cases, "judged", "called abnormal by classifier and judge: judge flipped",
                         called & (judged["judge_x"] >= CALLED_ABNORMAL), called,
                         "called abnormal by the classifier, healthy by the judge"))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(cases: pd.DataFrame, name: str, meaning: str, population: pd.Series, parent: pd.Series, reason: str) -> dict:
    """`dropped`: slices of the parent population that are not in this one."""
    dropped = int((parent & ~population).sum())
    return {"population": name, "meaning": meaning, "n_slices": int(population.sum()),
            "n_patients": cases.loc[population, "patient_id"].nunique(), "dropped": dropped,
            "reason": reason if dropped else ""}

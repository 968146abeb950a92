"""Whether counterfactuals flip the explained classifier, and a second, independent one."""

from __future__ import annotations

import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.metrics.evaluation import EvaluateParams, EvaluationError
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import rates_with_intervals

BOUGHT = "; destroying the image buys it, see bounded flips"


class CounterfactualValidity(Family):
    """Rates with Wilson's intervals, each over its own population, whatever the slices' labels.

    success_rate: of f(x) >= 0.5, how many have f(x_cf) < 0.5. cv: of f(x) > tau, how many have |f(x) - f(x_cf)| > tau
    (COIN, Shvetsov et al., 2024). judge_flip_rate: of those that classifier and judge both call abnormal, how many the
    judge calls healthy in x_cf. Over no case there is no rate: then only the count, 0, is given.
    """

    place = 50
    theme = "Does the counterfactual flip the classifiers?"
    needs = ("counterfactual",)
    absent = "no test slice qualifies"
    metrics = {
        "success_rate": Metric("flipped", "of the slices called abnormal, share whose counterfactual is called healthy"
                               + BOUGHT, True, "n_success_rate", interval=True, tolerance=0.02,
                               tables=("ranking", "terminal"), bought=True),
        "cv": Metric("CV", "counterfactual validity: share whose probability moves by more than evaluate.cv_tau"
                     + BOUGHT, True, "n_cv", interval=True, tolerance=0.02, tables=("ranking",), bought=True),
        "judge_flip_rate": Metric("judge flipped", "share that a second, independent classifier calls healthy too"
                                  + BOUGHT, True, "n_judge_flip_rate", interval=True, tolerance=0.02,
                                  tables=("ranking", "terminal"), bought=True),
    }
    counts = {"n_success_rate": "slices that the classifier calls abnormal, whatever their label",
              "n_cv": "slices with f(x) above evaluate.cv_tau",
              "n_judge_flip_rate": "slices that classifier and judge both call abnormal"}
    columns = ("f_x", "f_x_cf", "judge_x", "judge_x_cf")  # f_x stands in every method's rows

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        method = artifacts.method
        cases["f_x_cf"] = artifacts.answers("f_x_cf")
        if cases["f_x_cf"].isna().any():
            raise EvaluationError(f"data/explanations/{method}/index.csv lacks f_x_cf of "
                                  f"{cases['f_x_cf'].isna().sum()} test slices though there are counterfactuals: "
                                  f"run `dvc repro explain@{method}`")
        names = ["judge_x", "judge_x_cf"]
        cases[names] = artifacts.recorded("judgements", names, "judge_counterfactuals")
        if cases[names].isna().any(axis=None):
            raise EvaluationError(f"data/judgements/{method}.csv has empty values for a method with counterfactuals: "
                                  "run `dvc repro judge_counterfactuals`")

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        f_x, f_cf, judge, judge_cf = (cases[name] for name in self.columns)
        called = f_x >= CALLED_ABNORMAL
        return rates_with_intervals({
            "success_rate": (called, f_cf < CALLED_ABNORMAL),
            "cv": (f_x > params.cv_tau, (f_x - f_cf).abs() > params.cv_tau),
            "judge_flip_rate": (called & (judge >= CALLED_ABNORMAL), judge_cf < CALLED_ABNORMAL),
        }, params.confidence)

"""Stage: what the judge, a second classifier trained on its own, says of every method's counterfactuals.

A change that fools only the explained classifier (an adversarial one) doesn't convince the judge.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import Explanations
from flipside.classifiers.backbones import load_classifier, predict_probabilities
from flipside.core import runtime as runtimes
from flipside.core.files import atomic_folder
from flipside.core.params import announce, read_params, stage_main, value_at
from flipside.core.progress import progress
from flipside.core.store import SliceStore

JUDGE = "models/classifiers/judge"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, judge, slices.
    methods = list(value_at(read_params(), "methods"))
    announce("judge_counterfactuals", methods=methods)
    runtime = runtimes.start(seed=0)  # nothing here is random
    judge = load_classifier(JUDGE, runtime)
    store = SliceStore.open("data/slices")
    # The slices are the same for all methods: the judge sees each of them once.
    of_slice = pd.Series(np.nan, index=store.index["slice_id"])

    # Judgements, one table per method.
    tables = {}
    for method in progress(methods, "judge"):
        explanations = Explanations.open(f"data/explanations/{method}")
        slice_ids = explanations.index["slice_id"]
        strangers = slice_ids[~slice_ids.isin(of_slice.index)]
        if len(strangers):
            raise ValueError(f"data/explanations/{method} explains {len(strangers)} slices that data/slices doesn't "
                             f"have (first: {strangers.iloc[0]}): run `dvc repro explain@{method}`")
        new = slice_ids[of_slice[slice_ids].isna().to_numpy()]
        if len(new):
            rows = of_slice.index.get_indexer(new)
            of_slice[new] = predict_probabilities(judge, store.images[rows], runtime)
        made = {"judge_x_cf": explanations.counterfactual, "judge_x_ab": explanations.abnormal}
        tables[method] = pd.DataFrame({
            "slice_id": slice_ids, "judge_x": of_slice[slice_ids].to_numpy(),
            **{column: np.nan if images is None else predict_probabilities(judge, np.array(images), runtime)
               for column, images in made.items()},
        })

    # Outputs.
    with atomic_folder("data/judgements") as folder:
        for method, table in tables.items():
            table.to_csv(folder / f"{method}.csv", index=False)
    print(f"judged {len(tables)} methods; {runtime.describe()}")


if __name__ == "__main__":
    stage_main(main)

"""What an independent classifier, the judge, says of every method's counterfactuals.

A change that fools only the explained classifier (an adversarial one) doesn't convince the judge.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import Explanations
from flipside.classifiers.networks.backbones import Classifier, predict_probabilities
from flipside.core import paths
from flipside.core.progress import progress
from flipside.core.runtime import Runtime
from flipside.core.store import SliceStore


def judge_methods(judge: Classifier, store: SliceStore, methods: list[str],
                  runtime: Runtime) -> dict[str, pd.DataFrame]:
    """A table per method: slice_id and the judge's probability of abnormal of the slice (judge_x), its counterfactual
    (judge_x_cf) and the image made abnormal (judge_x_ab), the latter two empty where the method makes none.

    Raises ValueError for explanations of slices that the store doesn't have.
    """
    # The slices are the same for all methods: the judge sees each of them once.
    of_slice = pd.Series(np.nan, index=store.index["slice_id"])
    tables = {}
    for method in progress(methods, "judge"):
        folder = paths.explanations(method)
        explanations = Explanations.open(folder)
        slice_ids = explanations.index["slice_id"]
        unknown = slice_ids[~slice_ids.isin(of_slice.index)]
        if len(unknown):
            raise ValueError(f"{folder} explains {len(unknown)} slices that {paths.SLICES} doesn't have (first: "
                             f"{unknown.iloc[0]}): run `dvc repro explain@{method}`")
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
    return tables

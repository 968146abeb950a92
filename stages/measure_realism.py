"""Stage: how far every method's counterfactuals are from their scans and from real healthy slices of the test split.

FID, KID and LPIPS only where their networks' weights lie in torch hub's cache; otherwise the reason is written down.
The distances in the classifier's own features are always there.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from time import perf_counter

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL, Explanations
from flipside.classifiers.backbones import load_classifier
from flipside.classifiers.pretrained import (
    ALEXNET,
    INCEPTION,
    Weights,
    inception_features,
    load_inception,
    load_lpips,
    lpips_distances,
)
from flipside.core import runtime as runtimes
from flipside.core.files import atomic_folder, write_json
from flipside.core.params import announce, load_section, load_value, read_params, stage_main, value_at
from flipside.core.progress import progress
from flipside.core.store import SliceStore
from flipside.methods.base.method import CLASSIFIER
from flipside.methods.checks.perceptual import classifier_features
from flipside.methods.checks.realism import (
    BOTH_DIRECTIONS,
    INCEPTION_METRICS,
    RealismParams,
    add_both_directions,
    measure_populations,
)

WEIGHTS = (INCEPTION, ALEXNET)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, slices, networks.
    params = load_section("realism", RealismParams)
    methods = list(value_at(read_params(), "methods"))
    seed, cv_tau = load_value("seed", int), load_value("evaluate.cv_tau", float)
    announce("measure_realism", seed=seed, methods=methods, realism=params, evaluate={"cv_tau": cv_tau})
    runtime = runtimes.start(seed)
    began = perf_counter()
    store = SliceStore.open("data/slices")
    rows = store.rows("test")
    if len(rows) == 0:
        raise ValueError("data/slices has no slice of the test split: give the data set more patients")
    index, scans = store.index.iloc[rows], np.array(store.images[rows])  # (N,H,W)
    opened = {method: Explanations.open(f"data/explanations/{method}") for method in methods}
    makers = [method for method in methods if opened[method].counterfactual is not None]
    classifier = load_classifier(CLASSIFIER, runtime)
    absent = {weights: weights.absence() for weights in WEIGHTS}
    doubtful = {weights: weights.doubt() for weights in WEIGHTS if not absent[weights]}
    inception = None if absent[INCEPTION] else load_inception(runtime)
    lpips = None if absent[ALEXNET] else load_lpips(runtime)

    # Distances of every method that makes counterfactuals; the scans' features in Inception are the same for all.
    def in_inception(images: np.ndarray) -> dict[str, np.ndarray]:
        dims = {} if inception is None else inception_features(inception, images, runtime, params.batch_size)
        return {f"inception_{dim}": features for dim, features in dims.items()}

    of_scans, results, tables = None, {}, {}
    for method in progress(makers, "realism"):
        at = positions(opened[method], index["slice_id"], method)
        counterfactuals = np.array(opened[method].counterfactual[at])  # (N,H,W)
        pooled, pooled_cf, distances = classifier_features(classifier, scans, counterfactuals, runtime,
                                                           params.batch_size)
        of_scans = of_scans or {"classifier": pooled} | in_inception(scans)
        of_counterfactuals = {"classifier": pooled_cf} | in_inception(counterfactuals)
        f_x = opened[method].index["f_x"].to_numpy(float)[at]
        results[method] = measure_populations(of_scans, of_counterfactuals, f_x >= CALLED_ABNORMAL,
                                              index["label"].to_numpy() == 0, params, seed)
        abnormal = opened[method].abnormal
        if abnormal is not None:
            add_both_directions(results[method], of_scans, of_counterfactuals, in_inception(np.array(abnormal[at])),
                                f_x, cv_tau)
        tables[method] = pd.DataFrame({"slice_id": index["slice_id"], "perceptual_clf": distances, "lpips": np.nan})
        if lpips is not None:
            tables[method]["lpips"] = lpips_distances(lpips, scans, counterfactuals, runtime, params.batch_size)
        for weights, names in needed_by(abnormal is not None).items():
            if absent[weights]:
                results[method].missing |= dict.fromkeys(names, absent[weights])
            elif doubtful[weights]:
                results[method].caution(names, doubtful[weights])

    # Outputs.
    with atomic_folder("data/realism") as folder:
        for method in makers:
            write_json(folder / f"{method}.json", asdict(results[method]))
            tables[method].to_csv(folder / f"{method}.csv", index=False)
    for weights, names in needed_by(any(opened[method].abnormal is not None for method in makers)).items():
        for word, reason in (("no", absent[weights]), ("doubtful", doubtful.get(weights))):
            if reason:
                print(f"{word} {', '.join(names)}: {reason} (the file comes from {weights.url})")
    print(f"{len(makers)} methods' counterfactuals of {len(rows)} test slices measured in "
          f"{perf_counter() - began:.1f} s; {runtime.describe()}")


def needed_by(both_directions: bool) -> dict[Weights, list[str]]:
    """Weights -> the metrics that need them, of a method that makes images abnormal too or of one that doesn't."""
    return {INCEPTION: INCEPTION_METRICS + (BOTH_DIRECTIONS if both_directions else []), ALEXNET: ["lpips"]}


def positions(explanations: Explanations, slice_ids: pd.Series, method: str) -> np.ndarray:
    """Where each of the slices stands among a method's explanations; refuses explanations that lack one."""
    at = pd.Index(explanations.index["slice_id"]).get_indexer(slice_ids)
    if (at < 0).any():
        raise ValueError(f"data/explanations/{method} lacks {(at < 0).sum()} of the {len(at)} test slices (first: "
                         f"{slice_ids[at < 0].iloc[0]}): run `dvc repro explain@{method}`")
    return at


if __name__ == "__main__":
    stage_main(main)

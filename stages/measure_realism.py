"""Stage: how far every method's counterfactuals are from their scans and from real healthy slices of the test split.

FID, KID and LPIPS only where their networks' weights lie in torch hub's cache; otherwise the reason is written down.
The distances in the classifier's own features are always there.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from time import perf_counter

import numpy as np

from flipside.artifacts.explanations import Explanations
from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.files import atomic_folder, write_json
from flipside.core.params import announce, load_section, load_value, read_params, stage_main, value_at
from flipside.core.progress import progress
from flipside.core.store import SliceStore
from flipside.methods.checks.method_realism import RealismMeter
from flipside.methods.checks.realism import RealismParams


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, slices, explanations, networks.
    params = load_section("realism", RealismParams)
    methods = list(value_at(read_params(), "methods"))
    seed, cv_tau = load_value("seed", int), load_value("evaluate.cv_tau", float)
    announce("measure_realism", seed=seed, methods=methods, realism=params, evaluate={"cv_tau": cv_tau})
    runtime = runtimes.start(seed)
    began = perf_counter()
    store = SliceStore.open(paths.SLICES)
    rows = store.rows("test")
    if len(rows) == 0:
        raise ValueError(f"{paths.SLICES} has no slice of the test split: give the data set more patients")
    opened = {method: Explanations.open(paths.explanations(method)) for method in methods}
    makers = [method for method in methods if opened[method].counterfactual is not None]
    meter = RealismMeter(store.index.iloc[rows], np.array(store.images[rows]),
                         load_classifier(paths.CLASSIFIER, runtime, store.channels), params, runtime, seed, cv_tau)

    # Distances of every method that makes counterfactuals.
    results = {method: meter.measure(opened[method], method) for method in progress(makers, "realism")}

    # Outputs.
    with atomic_folder(paths.REALISM) as folder:
        for method, (realism, table) in results.items():
            write_json(folder / f"{method}.json", asdict(realism))
            table.to_csv(folder / f"{method}.csv", index=False)
    for warning in meter.warnings(both_directions=any(opened[method].abnormal is not None for method in makers)):
        print(warning)
    print(f"{len(makers)} methods' counterfactuals of {len(rows)} test slices measured in "
          f"{perf_counter() - began:.1f} s; {runtime.describe()}")


if __name__ == "__main__":
    stage_main(main)

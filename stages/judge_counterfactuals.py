"""Stage: what the judge, a second classifier trained on its own, says of every method's counterfactuals."""

from __future__ import annotations

import argparse

from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.files import atomic_folder
from flipside.core.params import announce, read_params, stage_main, value_at
from flipside.core.store import SliceStore
from flipside.methods.checks.judgement import judge_methods


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, judge, slices.
    methods = list(value_at(read_params(), "methods"))
    announce("judge_counterfactuals", methods=methods)
    runtime = runtimes.start(seed=0)  # nothing here is random
    store = SliceStore.open(paths.SLICES)
    judge = load_classifier(paths.JUDGE, runtime, store.channels)

    # Judgements, one table per method.
    tables = judge_methods(judge, store, methods, runtime)

    # Outputs.
    with atomic_folder(paths.JUDGEMENTS) as folder:
        for method, table in tables.items():
            table.to_csv(folder / f"{method}.csv", index=False)
    print(f"judged {len(tables)} methods; {runtime.describe()}")


if __name__ == "__main__":
    stage_main(main)

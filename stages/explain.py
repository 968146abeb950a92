"""Stage: slices + trained models -> one method's explanations of all slices of the splits in `explain.splits`.

And the randomisation check: some of its maps drawn again under shuffled weights of the classifier, and compared.
"""

from __future__ import annotations

import argparse

import pandas as pd

from flipside.artifacts.explanations import COUNTERFACTUAL, Image, write_explanations
from flipside.classifiers.networks.backbones import load_classifier, predict_probabilities
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.methods.base.explain_slices import explain_slices
from flipside.methods.base.method import Context, find_method
from flipside.methods.base.parameters import ExplainParams
from flipside.methods.base.randomisation import SanityParams, check_randomisation, summarise_check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, help="a name under `methods` in params.yaml")
    name = parser.parse_args().method

    # Parameters, models, slices.
    method_class = find_method(name)
    params = load_section("explain", ExplainParams)
    sanity = load_section("sanity", SanityParams)
    method_params = load_section(f"methods.{name}", method_class.Params)
    seed = load_value("seed", int)
    announce(f"explain {name}", seed=seed, explain=params, sanity=sanity, **{name: method_params})
    runtime = runtimes.start(seed)
    store = SliceStore.open(paths.SLICES)
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    context = Context(classifier, runtime, seed)
    method = method_class(method_params, context)
    rows = store.rows(tuple(params.splits))
    if len(rows) == 0:
        raise ValueError(f"{paths.SLICES} has no slice of the splits {params.splits}: see `explain.splits` in "
                         "params.yaml")

    # Explanations, the classifier's answer to the images as they are stored, and the check.
    explained = explain_slices(method, store, rows, params.batch_size, runtime, name)
    seconds = explained.seconds + method.seconds_before * len(rows)
    images = {} if explained.counterfactual is None else {COUNTERFACTUAL: explained.counterfactual}
    scored = [*images.items(), *((kind, array) for kind, array in explained.arrays.items() if isinstance(kind, Image))]
    index = pd.DataFrame({
        "slice_id": store.index["slice_id"].to_numpy()[rows],
        "f_x": predict_probabilities(classifier, store.images[rows], runtime),
        **{kind.score: predict_probabilities(classifier, array, runtime) for kind, array in scored if kind.score},
        **{number.name: values for number, values in explained.numbers.items()},
    })
    timing = {
        "seconds": seconds, "images": len(rows), "seconds_per_image": seconds / len(rows),
        "device": runtime.describe(), "peak_memory_gb": runtime.peak_memory_gb(),
    }
    found = check_randomisation(method_class, method_params, context, store, sanity, params.batch_size)

    # Outputs.
    write_explanations(paths.explanations(name), explained.attribution, explained.counterfactual, index, timing,
                       explained.arrays, {"parameters": method_params.model_dump(mode="json"), "randomisation": found})
    print(f"{name}: {len(rows)} slices explained, {seconds / len(rows):.4f} s per slice; {runtime.describe()}, "
          f"{runtime.describe_peak_memory()}")
    print(summarise_check(name, found))


if __name__ == "__main__":
    stage_main(main)

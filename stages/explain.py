"""Stage: slices + trained models -> one method's explanations of all slices of the splits in `explain.splits`.

And the randomisation check: some of its maps drawn again under shuffled weights of the classifier, and compared.
"""

from __future__ import annotations

import argparse
import functools
from typing import cast

import pandas as pd

from flipside.artifacts.explanations import ATTRIBUTION, COUNTERFACTUAL, Image, write_explanations
from flipside.classifiers.networks.backbones import predict_probabilities
from flipside.classifiers.networks.pretrained import ALEXNET
from flipside.core import paths
from flipside.core.files import folder_digest
from flipside.core.parallel import Work, add_share
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.runtime import RuntimeParams
from flipside.core.store import SliceStore
from flipside.methods.base.explain_slices import Explainer, join_explanations
from flipside.methods.base.method import find_method
from flipside.methods.base.parameters import ExplainParams
from flipside.methods.base.randomisation import SanityParams, check_randomisation, summarise_check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, help="a name under `methods` in params.yaml")
    add_share(parser)
    arguments = parser.parse_args()
    name = arguments.method

    # Parameters, models, slices.
    method_class = find_method(name)
    params = load_section("explain", ExplainParams)
    sanity = load_section("sanity", SanityParams)
    method_params = load_section(f"methods.{name}", method_class.Params)
    seed = load_value("seed", int)
    announce(f"explain {name}", seed=seed, explain=params, sanity=sanity, **{name: method_params})
    runtime_params = load_section("runtime", RuntimeParams)
    store = SliceStore.open(paths.SLICES)
    rows = store.rows(tuple(params.splits))
    if len(rows) == 0:
        raise ValueError(f"{paths.SLICES} has no slice of the splits {params.splits}: see `explain.splits` in "
                         "params.yaml")

    # Explanations, the classifier's answer to the images as they are stored, and the check.
    sources = {folder: folder_digest(folder) for folder in {paths.SLICES, paths.CLASSIFIER, method_params.needs}}
    computed = [runtime_params.device, runtime_params.precision, ALEXNET.absence()]
    work = Work(f"explain/{name}", [params.model_dump(), method_params.model_dump(), seed, sources, computed],
                functools.partial(Explainer, name, method_params, seed, runtime_params.of_worker()),
                [rows[start : start + params.batch_size] for start in range(0, len(rows), params.batch_size)])
    if arguments.part is not None:
        return work.run_share(arguments.part)
    explained = join_explanations(work.run(runtime_params), method_class.extras, len(rows), work.folder)
    explainer = cast(Explainer, work.opened)
    runtime, classifier = explainer.runtime, explainer.classifier
    seconds = explained.effort.seconds + explainer.method.seconds_before * len(rows)
    index = pd.DataFrame({
        "slice_id": store.index["slice_id"].to_numpy()[rows],
        "f_x": explainer.score_slices(rows),
        **{kind.score: predict_probabilities(classifier, array, runtime) for kind, array in explained.arrays.items()
           if isinstance(kind, Image) and kind.score},
        **{number.name: values for number, values in explained.numbers.items()},
    })
    found = check_randomisation(method_class, method_params, explainer.context, store, sanity, params.batch_size)
    timing = {
        "seconds": seconds, "images": len(rows), "seconds_per_image": seconds / len(rows),
        "device": explained.effort.device, "peak_memory_gb": explained.effort.peak_memory_gb,
    }

    # Outputs.
    attribution, counterfactual = (explained.arrays.pop(kind, None) for kind in (ATTRIBUTION, COUNTERFACTUAL))
    assert attribution is not None, "every batch has one"
    write_explanations(paths.explanations(name), attribution, counterfactual, index, timing, explained.arrays,
                       {"parameters": method_params.model_dump(mode="json"), "randomisation": found})
    work.clear()
    print(f"{name}: {len(rows)} slices explained, {seconds / len(rows):.4f} s per slice; {explained.effort.device}")
    print(summarise_check(name, found))


if __name__ == "__main__":
    stage_main(main)

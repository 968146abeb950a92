"""Stage: what the classifier says of test slices in which one square after the other is inpainted with healthy tissue.

Where lesions are is not known here; the stage check_inpainter sorts the answers.
"""

from __future__ import annotations

import argparse
from typing import cast

from flipside.artifacts.probes import ProbeParams
from flipside.classifiers.networks.backbones import load_classifier
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.generators.base.loading import load_generator
from flipside.methods.checks.inpainter_probe import Inpainter, probe_slices

INPAINTER = paths.generator("impact")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, networks, slices.
    params = load_section("probe", ProbeParams)
    seed = load_value("seed", int)
    announce("probe_inpainter", seed=seed, probe=params)
    runtime = runtimes.start(seed)
    store = SliceStore.open(paths.SLICES)
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)
    inpainter = cast(Inpainter, load_generator(INPAINTER, runtime))
    rows = store.rows("test")

    # The classifier's answers, before and after.
    probes = probe_slices(store, rows, inpainter, classifier, params, runtime)

    # Outputs.
    probes.write()
    print(f"{len(probes.holes)} squares of {probes.holes['side'].max()} pixels inpainted in {len(rows)} test slices; "
          f"{runtime.describe()}")


if __name__ == "__main__":
    stage_main(main)

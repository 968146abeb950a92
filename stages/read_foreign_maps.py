"""Stage: maps or masks that were made elsewhere (data/foreign/<name>) -> explanations, as those of any other method."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from flipside.artifacts.explanations import write_explanations
from flipside.classifiers.networks.backbones import load_classifier, predict_probabilities
from flipside.core import paths
from flipside.core import runtime as runtimes
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.masks.placing import read_geometries
from flipside.methods.base.parameters import ExplainParams
from flipside.methods.foreign.reading import ForeignMaps, read_maps

UNCHECKED = "its maps were made elsewhere and are read from files"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", required=True, help="a name under `foreign_maps` in params.yaml")
    name = parser.parse_args().method

    # Parameters, slices, original grids, classifier.
    explain = load_section("explain", ExplainParams)
    params = load_section(f"foreign_maps.{name}", ForeignMaps)
    seed = load_value("seed", int)
    announce(f"read_foreign_maps {name}", seed=seed, explain=explain, **{name: params})
    runtime = runtimes.start(seed)
    store = SliceStore.open(paths.SLICES)
    rows = store.rows(tuple(explain.splits))
    index = store.index.iloc[rows]
    geometries = read_geometries(index["scan_id"])
    classifier = load_classifier(paths.CLASSIFIER, runtime, store.channels)

    # Maps on the slices' grid, and the classifier's answer to the slices, by which every method's masks are gated.
    folder = paths.foreign(name)
    maps = read_maps(Path(folder), params, index, geometries, store.sides)  # (N,H,W)
    table = pd.DataFrame({"slice_id": index["slice_id"].to_numpy(),
                          "f_x": predict_probabilities(classifier, store.images[rows], runtime)})

    # Outputs. How long the maps took elsewhere is not known.
    timing = {"seconds": None, "images": len(rows), "seconds_per_image": None, "device": None, "peak_memory_gb": None}
    write_explanations(paths.explanations(name), maps, None, table, timing, records={
        "parameters": {"needs": folder, **params.model_dump(mode="json")}, "randomisation": {"reason": UNCHECKED}})
    blank = int((maps.max(axis=(1, 2)) == 0).sum())
    print(f"{name}: maps of {len(rows)} slices of {len(geometries)} scans read from {folder}; {blank} are blank")


if __name__ == "__main__":
    stage_main(main)

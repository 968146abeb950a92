"""Stage: slices + generator + encoder -> the blobs of every explained slice (`--generator blobgan`)."""

from __future__ import annotations

import argparse
import functools
from typing import cast

from flipside.classifiers.networks.pretrained import ALEXNET
from flipside.core import paths
from flipside.core.files import folder_digest
from flipside.core.parallel import Work, add_share
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.runtime import RuntimeParams
from flipside.core.store import SliceStore
from flipside.methods.base.parameters import ExplainParams
from flipside.methods.inverting.invert_slices import Inverter, join_inversions
from flipside.methods.latent.inversion import InversionParams
from flipside.methods.latent.latents import write_latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", required=True, help="a block under `inversions` in params.yaml")
    add_share(parser)
    arguments = parser.parse_args()
    name = arguments.generator

    # Parameters, slices, frozen networks.
    params = load_section(f"inversions.{name}", InversionParams)
    splits, seed = load_section("explain", ExplainParams).splits, load_value("seed", int)
    announce(f"invert {name}", seed=seed, splits=splits, **{name: params})
    runtime_params = load_section("runtime", RuntimeParams)
    store = SliceStore.open(paths.SLICES)
    rows, source = store.rows(tuple(splits)), paths.generator(name)

    # Inversion, a batch of slices at a time.
    sources = [folder_digest(folder) for folder in (paths.SLICES, paths.CLASSIFIER, source, paths.encoder(name))]
    computed = [runtime_params.device, runtime_params.precision, ALEXNET.absence()]
    work = Work(f"invert/{name}", [params.model_dump(), seed, splits, sources, computed],
                functools.partial(Inverter, name, params, seed, runtime_params.of_worker()),
                [rows[start : start + params.batch_size] for start in range(0, len(rows), params.batch_size)])
    if arguments.part is not None:
        return work.run_share(arguments.part)
    inverter = cast(Inverter, work.opened)
    layout, table, effort = join_inversions(work.run(runtime_params), inverter.generator.blob_area)

    # Outputs.
    index = store.index.iloc[rows][["slice_id", "split"]].reset_index(drop=True).assign(row=rows, **table)
    kept = float(((index["f_x"] >= 0.5) == (index["f_reconstruction"] >= 0.5)).mean())
    error = float(index["absolute_error"].mean())
    timing = {"seconds": effort.seconds, "images": len(rows), "seconds_per_image": effort.seconds / len(rows),
              "decision_kept": kept, "absolute_error": error, "perceptual": inverter.observer.name,
              "device": effort.device, "peak_memory_gb": effort.peak_memory_gb}
    write_latents(paths.latents(name), layout, index, timing, source)
    work.clear()
    print(f"{name}: {len(rows)} slices inverted, mean absolute error {error:.4f}, decision kept on {kept:.1%}, "
          f"{effort.seconds / len(rows):.3f} s per slice; {effort.device}")


if __name__ == "__main__":
    stage_main(main)

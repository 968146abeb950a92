"""Stage: scans of the chosen data set -> slices in its own units with their masks and geometry (data/extracted)."""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path

from flipside.cohort.extraction import ExtractParams, FoundScans, open_extraction, write_slices
from flipside.core.files import atomic_folder
from flipside.core.image_size import ImageSize
from flipside.core.parallel import Work, add_share
from flipside.core.params import announce, check_all, load_section, load_value, stage_main
from flipside.scans.layout import refuse_linked_folders
from flipside.scans.layouts import DatasetParams

OUTPUT, RAW = Path("data/extracted"), Path("data/raw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_share(parser)
    share = parser.parse_args().part

    # Parameters. As a first stage of the pipeline it refuses a wrong params.yaml as a whole.
    check_all()
    dataset = load_value("dataset", str)
    block = load_section(f"datasets.{dataset}", DatasetParams).root
    params = load_section("extract", ExtractParams)
    image_size = load_value("image_size", ImageSize)
    announce("extract_slices", dataset=dataset, **{f"datasets.{dataset}": block}, extract=params, image_size=image_size)

    refuse_linked_folders(dataset, RAW / dataset)
    if (RAW / dataset).resolve() not in (Path(block.root).resolve(), *Path(block.root).resolve().parents):
        print(f"note: DVC watches {RAW / dataset}, which doesn't hold datasets.{dataset}.root ({block.root}): changes "
              "there make nothing stale")

    # Extraction, scan by scan, into a folder that takes its name when it is whole.
    started = time.monotonic()
    found = FoundScans.of(dataset, block)
    work = Work("extract_slices", [dataset, block.model_dump(), params.model_dump(), image_size, found.fingerprint(),
                                   [str(each) for each in found.labelled]],
                functools.partial(open_extraction, block, params, image_size), found.labelled)
    if share is not None:
        return work.run_share(share)
    from flipside.core.runtime import RuntimeParams  # here: workers import this file, and torch would take them seconds

    with atomic_folder(OUTPUT) as folder:
        manifest = write_slices(found, params, work.run(load_section("runtime", RuntimeParams)), folder)
    work.clear()

    # Report.
    counts = manifest["counts"]
    print(f"{counts['slices']} slices of {counts['scans']} scans, {counts['patients']} patients after "
          f"{time.monotonic() - started:.0f} s; without organ: {counts['without_organ']}, left out: "
          f"{counts['left_out'] + counts['class_left_out']} (data/extracted/manifest.json says why)")
    if manifest["planes"]:
        print(f"volumes by plane: {', '.join(f'{plane} {count}' for plane, count in manifest['planes'].items())}")
    print(f"channels: {', '.join(manifest['channels'])}")


if __name__ == "__main__":
    stage_main(main)

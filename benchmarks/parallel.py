"""Extraction by local Dask workers against one process: the ratio of their times, and that the bytes are the same.

`python -m benchmarks.parallel`, in the folder that holds params.yaml, on an idle machine with a core for each worker.
Scans are simulated as the section `phantom` says. One thread in each process; starting the workers counts.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from flipside.cohort.extraction import ExtractParams, FoundScans, open_extraction, write_slices
from flipside.cohort.phantom.phantom import PhantomParams, write_scans
from flipside.core.files import folder_digest
from flipside.core.parallel import Work
from flipside.core.params import load_section, load_value
from flipside.scans.layouts import DatasetParams

if TYPE_CHECKING:  # workers import this file, and torch with it would take them seconds
    from flipside.core.runtime import RuntimeParams

SIMULATED = 20  # patients; more scans are copies of theirs


def write_cases(root: Path, count: int) -> None:
    """`count` scans; the reader can't tell the copies from others."""
    params, seed = load_section("phantom", PhantomParams), load_value("seed", int)
    write_scans(params, seed, root, range(1, min(count, SIMULATED) + 1))
    originals = sorted((root / "cases").iterdir())
    for number in range(len(originals), count):
        shutil.copytree(originals[number % len(originals)], root / "cases" / f"case_9{number:05d}")


def extract_with(runtime: RuntimeParams, root: Path, folder: Path) -> float:
    """Extract the scans in `root` into `folder`; the seconds."""
    block = load_section("datasets.phantom", DatasetParams).root.model_copy(update={"root": str(root / "cases")})
    params, image_size = load_section("extract", ExtractParams), load_value("image_size", int)
    folder.mkdir()
    with contextlib.chdir(root.parent):
        started = time.perf_counter()
        found = FoundScans.of("phantom", block)
        work = Work("extract_slices", runtime.cluster, functools.partial(open_extraction, block, params, image_size),
                    found.labelled)
        write_slices(found, params, work.run(runtime), folder)
        seconds = time.perf_counter() - started
        work.clear()
    return seconds


@contextlib.contextmanager
def killing_workers(times: int, scratch: Path, parts: int) -> Iterator[None]:
    """While the block runs, kill the busiest worker so many times, each after as many more parts."""
    def kill() -> None:
        for number in range(1, times + 1):
            while len(list(scratch.glob("*/*.safetensors"))) < parts * number / (times + 1):
                time.sleep(0.05)
            busiest = max(psutil.Process().children(), key=lambda process: process.cpu_times().user)
            print(f"worker {busiest.pid} is killed", flush=True)
            busiest.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    yield
    killer.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--scans", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="turns of which the best is taken")
    arguments = parser.parse_args()
    from flipside.core.runtime import RuntimeParams

    clusters = {"one process": RuntimeParams(), "workers": RuntimeParams(cluster="local", workers=arguments.workers)}
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "raw")
        write_cases(root, arguments.scans)
        for turn in range(arguments.repeats):
            for what, runtime in clusters.items():
                seconds = extract_with(runtime, root, Path(name, f"{what} {turn}"))
                best[what] = min(seconds, best.get(what, seconds))
                print(f"{what}: {seconds:.1f} s; load of the machine: {psutil.getloadavg()[0]:.1f}", flush=True)
        with killing_workers(2, root.parent / ".scratch/extract_slices", arguments.scans):
            extract_with(clusters["workers"], root, Path(name, "killed"))
        same = len({folder_digest(folder) for folder in Path(name).iterdir()
                    if folder != root and not folder.name.startswith(".")}) == 1
    print(f"extraction of {arguments.scans} scans by {arguments.workers} workers: "
          f"{best['one process'] / best['workers']:.2f} times as fast as by one process "
          f"(target >= {0.85 * arguments.workers:.2f})")
    print(f"bytes are {'the same' if same else 'NOT THE SAME'}, with two workers killed too")


if __name__ == "__main__":
    main()

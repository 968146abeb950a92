"""What `flipside predict` adds to the method itself on many scans, and whether its memory grows with their number.

`python -m benchmarks.predict` in the folder of a finished run, or with `--run`. New scans of the phantom are simulated
under another seed than the run's, and repeated under other names until there are enough. Bare is the method alone on
prepared slices in memory, in batches of the same size; on a CPU seconds are the processor's, which other work on the
machine doesn't change.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.rise import clock
from benchmarks.speed import in_own_process, report
from flipside.cli.predict import predict
from flipside.cohort.phantom.phantom import PhantomParams, simulate_scan, write_scan
from flipside.core.params import PARAMS_FILE, load_section, load_value
from flipside.core.runtime import now
from flipside.prediction.finding import find_new_scans
from flipside.prediction.fingerprint import Fingerprint
from flipside.prediction.prepared import prepare
from flipside.prediction.trained import Explainer, TrainedRun

ANOTHER_SEED = 100_000  # added to the run's


def simulate(run: Path, folder: Path, number: int) -> None:
    """One new scan of the phantom with its organ labels, as the run's own."""
    seed = load_value("seed", int, run / PARAMS_FILE) + ANOTHER_SEED
    scan = simulate_scan(load_section("phantom", PhantomParams, run / PARAMS_FILE), seed, number)
    write_scan(scan, folder / "cases" / f"new_{number:04d}")


def repeat_scans(simulated: Path, folder: Path, count: int) -> None:
    """So many scans, each a file of its own."""
    (folder / "cases").mkdir(parents=True)
    cases = sorted((simulated / "cases").iterdir())
    for number, case in zip(range(count), itertools.cycle(cases), strict=False):
        shutil.copytree(case, folder / "cases" / f"scan_{number:05d}")


def time_predict(run: Path, scans: Path, method: str) -> dict[str, Any]:
    """Seconds of the whole command, starting up left out, with slices and peak memory of this process."""
    runtime = Explainer(TrainedRun.open(run), method).runtime  # imports and a first load of the models
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        out = Path(folder) / "out"
        began, wall = clock(runtime), now(runtime)
        predict([scans], out, run, method)
        seconds, wall = clock(runtime) - began, now(runtime) - wall
        slices = float(pd.read_csv(out / "predictions.csv")["slices"].sum())
    return {"seconds": seconds, "wall": wall, "slices": slices, "peak_gb": runtime.peak_memory_gb() or float("nan"),
            "device": runtime.describe()}


def time_bare(run: Path, scans: Path, method: str, repeats: int) -> dict[str, float]:
    """Seconds for each slice of the method's bare calls, and of these with the classifier's answers."""
    trained = TrainedRun.open(run)
    explainer, fingerprint = Explainer(trained, method), Fingerprint.read(trained)
    prepared = [prepare(new, trained, fingerprint) for new in find_new_scans([scans], [], trained, Path("nowhere"))]
    images, organ, z = (np.concatenate([getattr(scan, name) for scan in prepared]) for name in ("images", "organ", "z"))
    size, runtime = explainer.batch_size, explainer.runtime
    batches = [(torch.as_tensor(images[start : start + size], device=runtime.device).float(),
                torch.as_tensor(z[start : start + size]),
                torch.as_tensor(organ[start : start + size], device=runtime.device))
               for start in range(0, len(images) - size + 1, size)]  # whole batches
    found = {"bare": 0.0, "wall": 0.0, "with_answers": 0.0}
    for turn in range(repeats + 1):  # the first warms up
        began, wall = clock(runtime), now(runtime)
        for batch in batches:
            explainer.method(*batch)
        middle, wall = clock(runtime), now(runtime) - wall
        for start in range(len(batches)):
            part = slice(start * size, start * size + size)
            explainer(images[part], organ[part], z[part])
        end = clock(runtime)
        if turn:
            for name, value in (("bare", middle - began), ("wall", wall), ("with_answers", end - middle)):
                found[name] += value / repeats / (len(batches) * size)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("."), help="a finished run of the phantom")
    parser.add_argument("--method", default="flip_mask")
    parser.add_argument("--scans", type=int, default=500)
    parser.add_argument("--few", type=int, default=50, help="scans whose peak memory is compared with that of all")
    parser.add_argument("--simulated", type=int, default=20, help="different ones among them")
    parser.add_argument("--repeats", type=int, default=3, help="turns of the bare method, on the different ones")
    arguments = parser.parse_args()
    run, method = arguments.run.resolve(), arguments.method

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            list(pool.map(simulate, *zip(*[(run, root / "simulated", number)
                                           for number in range(1, arguments.simulated + 1)], strict=True)))
        for count in (arguments.few, arguments.scans):
            repeat_scans(root / "simulated", root / str(count), count)
        bare = in_own_process(time_bare, run, root / "simulated/cases", method, arguments.repeats)
        few, many = (in_own_process(time_predict, run, root / str(count) / "cases", method)
                     for count in (arguments.few, arguments.scans))

    slices = many["slices"]
    print(f"{arguments.scans} scans, {slices:.0f} slices explained by {method}: {many['wall'] / arguments.scans:.2f} s "
          f"a scan, {many['seconds'] / arguments.scans:.2f} s of the processor; the method alone "
          f"{1000 * bare['bare']:.1f} ms a slice, with the classifier's answers {1000 * bare['with_answers']:.1f} ms")
    report("predict, slices/s / method alone", bare["bare"] * slices / many["seconds"], "", 0.8, at_least=True)
    report("the same on the wall clock", bare["wall"] * slices / many["wall"], "", 0.8, at_least=True)
    report(f"peak memory, {arguments.scans} scans / {arguments.few}", many["peak_gb"] / few["peak_gb"], "", 1.1,
           at_least=False)
    print(f"peak memory {few['peak_gb']:.2f} GB with {arguments.few} scans, {many['peak_gb']:.2f} GB with "
          f"{arguments.scans}; on {many['device']}")


if __name__ == "__main__":
    main()

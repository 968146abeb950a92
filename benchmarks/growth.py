"""How the time of every stage grows with the number of slices and with their pixels: exponents, 1 where it is linear.

`make growth` or `python -m benchmarks.growth`, in the project's folder; an hour of one core with the widths of the
profile cpu. All stages of dvc.yaml run by their own mains, in one process: on N simulated patients and on four times as
many, then at 64, 128 and 256 pixels. Trainings are cut to one epoch (classifiers) or two steps (all others), so a part
that doesn't depend on the number of slices has an exponent near 0. Time is the processor's, which other work on the
machine hardly changes, and the least of `--repeats`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from flipside.cli.profile import read_profile
from flipside.core.params import DATASETS_FILE, PARAMS_FILE, read_params, value_at
from flipside.core.progress import progress
from flipside.core.runtime import MALLOC_OPTIONS
from flipside.published.ablations import edited

MOST = 1.1  # the exponent that no part may exceed
LEAST_SECONDS = 0.2  # what is shorter in its longest run says nothing
WARM_UP = 8  # patients of the first run, which imports what is slow to import and isn't counted
ROOT = Path(__file__).parents[1]
# One epoch or two steps, each with all that a step may have; searches of few steps. Nothing else is cut.
CUT = {"epochs": 1, "steps_per_epoch": 0, "fine_tuning_steps": 1, "steps": 2, "first_steps": 2, "images": 8,
       "generator_every": 1, "sampled_every": 2, "slices": 2, "draws": 1}


def cut(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: CUT[key] if key in CUT and isinstance(value, int) else cut(value) for key, value in node.items()}


def parameters(profile: str, patients: int, side: int, methods: list[str] | None) -> dict[str, Any]:
    """A profile's parameters, cut, for so many simulated patients with slices of `side` x `side` pixels."""
    params = edited(read_params(ROOT / PARAMS_FILE), read_profile(profile))
    scale = side // params["image_size"]
    for section in ("classifiers", "generators", "segmenter", "encoders", "inversions", "attributes", "methods",
                    "sanity"):
        params[section] = cut(params[section])
    for name in ("blobgan", "stylegan"):  # which make images of this size alone
        params["generators"][name]["size_in"] *= scale
    changes = {"image_size": side, "phantom.patients": patients, "phantom.rows_cols": side,
               "filter.min_organ_px": side**2 // 256, "pseudo_masks.verify": False, "runtime.threads": 1,
               "runtime.device": "cpu"}
    params = edited(params, changes)
    if methods:
        params["methods"] = {name: params["methods"][name] for name in methods}
    return params


def commands(params: dict[str, Any], until: str) -> dict[str, list[str]]:
    """{stage: words of its command after `python -m`} of dvc.yaml up to `until`, each `foreach` unrolled."""
    found: dict[str, list[str]] = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        keys = value_at(params, stage["foreach"][2:-1]) if "foreach" in stage else [None]
        for key in keys:
            words = stage.get("do", stage)["cmd"].replace("${key}", str(key)).split()
            found[name if key is None else f"{name}@{key}"] = words[2:]
        if name == until:
            break
    return found


def seconds_of(words: list[str]) -> float:
    """Processor seconds of a stage in this process; what it prints is shown only where it fails."""
    printed = io.StringIO()
    sys.argv = words
    module = importlib.import_module(words[0])
    began = time.process_time()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            module.main()
    except BaseException:
        print(printed.getvalue()[-3000:], f"\n{' '.join(words)} failed", file=sys.stderr)
        raise
    return time.process_time() - began


def run(params: dict[str, Any], until: str, what: str) -> dict[str, float]:
    """{stage: seconds} of a pipeline in a folder of its own, up to the stages `until`."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PARAMS_FILE).write_text(yaml.safe_dump(params, sort_keys=False))
        shutil.copy(ROOT / DATASETS_FILE, folder)
        os.chdir(folder)
        try:
            return {name: seconds_of(words) for name, words in progress(commands(params, until).items(), what)}
        finally:
            os.chdir(here)


def exponent(first: float, second: float, ratio: float) -> float:
    """e of second = first * ratio ** e."""
    return math.log(second / first) / math.log(ratio)


def print_growth(title: str, sizes: list[int], runs: list[dict[str, float]], power: int) -> list[str]:
    """A table of seconds and exponents, from size to size; the stages whose exponent from the last size but one to the
    last is too large. `power`: 2 where a size is a side of pixels."""
    print(f"\n{title}\n{'stage':<36}" + "".join(f"{size:>9}" for size in sizes) + "   exponents")
    missed = []
    for name in runs[0]:
        times = [max(seconds[name], 1e-4) for seconds in runs]
        found = [exponent(a, b, (sizes[n + 1] / sizes[n]) ** power) for n, (a, b) in
                 enumerate(zip(times, times[1:], strict=False))]
        above = times[-1] >= LEAST_SECONDS and found[-1] > MOST
        missed += [name] * above
        print(f"{name:<36}" + "".join(f"{seconds:9.2f}" for seconds in times)
              + "   " + "  ".join(f"{each:5.2f}" for each in found) + "  ABOVE" * above, flush=True)
    return missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--profile", default="cpu", help="whose networks and batches are used")
    parser.add_argument("--patients", type=int, default=12, help="N of 30 slices each; the other size is four times N")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256],
                        help="in pixels, multiples of the profile's")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--until", default="report", help="the last stage that runs, by its name in dvc.yaml")
    parser.add_argument("--methods", nargs="+", help="of all methods these alone")
    parser.add_argument("--library-malloc", action="store_true",
                        help="with the C library's own thresholds, to compare: see `keep_freed_memory`")
    arguments = parser.parse_args()
    if arguments.library_malloc:
        MALLOC_OPTIONS.clear()

    def least(patients: int, side: int) -> dict[str, float]:
        params = parameters(arguments.profile, patients, side, arguments.methods)
        runs = [run(params, arguments.until, f"{patients} patients, {side} x {side}") for _ in range(arguments.repeats)]
        return {name: min(seconds[name] for seconds in runs) for name in runs[0]}

    smallest = arguments.sides[0]
    run(parameters(arguments.profile, WARM_UP, smallest, arguments.methods), arguments.until, "warm-up")
    counts = [arguments.patients, 4 * arguments.patients]
    by_count = [least(count, smallest) for count in counts]
    missed = print_growth(f"patients, {smallest} x {smallest} pixels", counts, by_count, power=1)
    by_side = [by_count[0], *(least(arguments.patients, side) for side in arguments.sides[1:])]
    missed += print_growth(f"side in pixels, {arguments.patients} patients", arguments.sides, by_side, power=2)
    print(f"\nabove {MOST}: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()

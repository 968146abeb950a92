"""Stage: parameters -> simulated abdominal CT scans with kidney labels (data/raw/phantom)."""

from __future__ import annotations

import time

from flipside.cohort.phantom.phantom import PhantomParams, write_scans
from flipside.core.params import announce, check_all, load_section, load_value, stage_main
from flipside.core.progress import progress

OUTPUT = "data/raw/phantom"


def main() -> None:
    # Parameters. As the pipeline's first stage it refuses a wrong params.yaml as a whole.
    check_all()
    params = load_section("phantom", PhantomParams)
    seed = load_value("seed", int)
    announce("simulate_scans", seed=seed, phantom=params)

    # Simulation, written scan by scan into a folder that takes its name when it is whole.
    started = time.monotonic()
    write_scans(params, seed, OUTPUT, progress(range(1, params.patients + 1), "simulating scans"))
    print(f"{params.patients} scans in {OUTPUT}/cases after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    stage_main(main)

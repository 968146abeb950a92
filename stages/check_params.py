"""Stage: params.yaml and datasets.yaml as a whole -> refused where any key is unknown, missing or wrong.

It depends on the files themselves and all other stages come after it, so a misspelt key stops a run even where no stage
reads it. What it writes is always the same: no edit makes another stage stale through it.
"""

from __future__ import annotations

from pathlib import Path

from flipside.core.files import atomic_file
from flipside.core.params import check_all, stage_main

OUTPUT = Path("data/checked_params.txt")


def main() -> None:
    check_all()
    with atomic_file(OUTPUT) as temporary:
        temporary.write_text("params.yaml and datasets.yaml have only known keys with values of the right kind\n")


if __name__ == "__main__":
    stage_main(main)

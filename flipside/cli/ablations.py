"""Queue the rows of a published ablation as DVC experiments."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from flipside.core.params import read_params


def ablations(
    ablation: Annotated[str, typer.Argument(help="A file in experiments/, without its ending.")],
    rows: Annotated[list[str] | None, typer.Argument(help="Its rows to queue; without any, all of them.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row.")] = 1,
    as_published: Annotated[bool, typer.Option(
        "--as-published", help="Also set what the published runs had besides, their own weights and faults.")] = False,
    print_only: Annotated[bool, typer.Option("--print", help="Print the commands and queue nothing.")] = False,
) -> None:
    """Queue the rows of a published ablation.

    Each row becomes a DVC experiment; `dvc exp run --run-all -j 1` then runs them. A row that is params.yaml as it
    stands is the commit's own run and needs no experiment; one that has been run is not queued again. An experiment
    ends with the metrics: its report is that of the commit until `dvc exp apply` and `dvc repro`.
    """
    from flipside.published.ablations import edits, experiment_name, read_ablation, written
    from flipside.regression.lockfile import DVC, run

    content, params = read_ablation(ablation), read_params()
    done = [] if print_only else run(*DVC, "exp", "list", "--name-only").split()
    for row in rows or content.rows:
        for seed in range(seeds if content.rows[row].method in params["generators"] else 1):
            name = experiment_name(ablation, row, as_published, seed)
            changed = edits(content, row, as_published, seed, params)
            if not changed:
                print(f"# {name}: params.yaml as it stands, `dvc repro`")
            elif name in done:
                print(f"# {name}: has been run (`dvc exp remove {name}` forgets it)")
            else:
                options = [part for key, value in changed.items() for part in ("-S", f"{key}={written(value)}")]
                command = ["exp", "run", "--queue", "--name", name, *options, "evaluate"]
                print(shlex.join(["dvc", *command]), flush=True)
                if not print_only:
                    run(*DVC, *command, "--quiet")

"""Our results of a published ablation beside the published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flipside.core.files import atomic_file
from flipside.core.params import ParamsError

FOLDER = Path("reports/ablations")


def ablation_tables(
    ablation: Annotated[str, typer.Argument(help="A file in experiments/, without its ending.")],
    as_published: Annotated[bool, typer.Option(
        "--as-published", help="Of the rows that were queued with --as-published.")] = False,
    rev: Annotated[str, typer.Option(help="The commit whose experiments are meant.")] = "HEAD",
) -> None:
    """Print an ablation beside the published numbers.

    The table and every single result are also written to reports/ablations.
    """
    from flipside.published.ablation_tables import collect, markdown
    from flipside.published.ablations import read_ablation
    from flipside.regression.lockfile import DVC, run

    content = read_ablation(ablation)
    shown = json.loads(run(*DVC, "exp", "show", "--json", "--rev", rev, "--hide-workspace"))
    found, notes = collect(shown, ablation, content, as_published)
    if found.empty:
        raise ParamsError(f"no result of {ablation} at {rev}: queue its rows with `flipside ablations {ablation}` and "
                          f"run them with `dvc exp run --run-all`. {'; '.join(notes)}")
    text = markdown(ablation, content, found, notes, as_published)
    name = ablation + ("_as_published" if as_published else "")
    for suffix, written in (("md", text), ("csv", found.to_csv(index=False))):
        with atomic_file(FOLDER / f"{name}.{suffix}") as file:
            file.write_text(written)
    print(text)

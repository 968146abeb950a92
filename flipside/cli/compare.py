"""Metrics and parameters against another revision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    rev: Annotated[str, typer.Option(help="The git revision to compare with.")] = "main",
    summary: Annotated[Path | None, typer.Option(
        help="Also append the comparison and `dvc metrics diff` to this file.")] = None,
) -> None:
    """Compare metrics and parameters with a revision.

    Compares what is committed. Fails (exit status 1) where a number got worse than tolerances.yaml allows, a method
    is gone, or dvc.lock is stale. Reads only what git holds, so a fresh clone without data will do.
    """
    from flipside.regression.compare import compare as passes

    if not passes(rev, summary):
        raise typer.Exit(1)

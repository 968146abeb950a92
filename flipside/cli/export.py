"""A finished run's models in one folder, for `flipside predict --bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle; it must not exist.")],
    method: Annotated[list[str] | None, typer.Option(
        help="A method to export, given once for each; by default the run's best one that needs no inversion of each "
             "slice.", show_default=False)] = None,
    run: Annotated[Path, typer.Option(help="Folder of the finished run.")] = Path("."),
) -> None:
    """Put a finished run's models into one folder for predict.

    Models, window, thresholds, parameters, how bright the training scans are, a note on licences, and a model card
    (README.md) with data, numbers and limits. No scan, label or mask of the training data goes along.
    """
    from flipside.prediction.bundle import CARD, write_bundle
    from flipside.prediction.trained import TrainedRun, choose_method

    trained = TrainedRun.open(run)
    methods = [choose_method(trained, name) for name in method] if method else [choose_method(trained)]
    write_bundle(out, trained, methods)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    print(f"{out}: {', '.join(methods)} on {trained.dataset}, {size:.1f} MB; {out / CARD} describes it")

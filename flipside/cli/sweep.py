"""A sweep as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def sweep(
    param: Annotated[str, typer.Option(help="The parameter on the x axis, a dotted key.")],
    metric: Annotated[list[str], typer.Option(help="<method>.<metric>; one panel for each time it is given.")],
    out: Annotated[Path, typer.Option(help="The PNG.")],
    rev: Annotated[str, typer.Option(help="The commit whose experiments are drawn.")] = "HEAD",
) -> None:
    """Draw metrics against a parameter.

    The points are a commit and the DVC experiments that start from it. For example: flipside sweep --param
    generators.coin.skips --metric coin.iou_label_free --out sweep.png
    """
    from flipside.experiments.sweep import draw, points
    from flipside.regression.lockfile import DVC, run
    from flipside.report.figures import save_figure

    shown = json.loads(run(*DVC, "exp", "show", "--json", "--rev", rev, "--hide-workspace"))
    table, left_out = points(shown, param, metric)
    save_figure(out, draw(table, param, metric))
    print(table.to_string(index=False))
    if left_out:
        print(f"left out, without a result: {', '.join(left_out)}")
    print(f"{out}: {len(table)} results")

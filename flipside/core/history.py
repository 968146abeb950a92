"""Learning curves, written through DVCLive so that `dvc plots` and VS Code show them."""

from __future__ import annotations

from pathlib import Path

from dvclive import Live


def write_history(folder: Path | str, history: list[dict[str, float]], step: str) -> None:
    """One TSV per column of `history` in `folder/plots/metrics`, against the column named by `step`.

    Written once, at the end of a training, so that a resumed run leaves the same curves as an uninterrupted one.
    """
    with Live(str(folder), dvcyaml=None, save_dvc_exp=False, report=None) as live:
        for row in history:
            live.step = int(row[step])
            for name, value in row.items():
                if name != step:
                    live.log_metric(name, value, timestamp=False)

"""The table in README.md: eight rows of the default run, from results/default."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generate.results import RESULTS, metrics_table, read_run
from flipside.report.tables import is_upper_bound, ranking

COLUMNS = ["iou_val", "dice_val", "pixel_ap", "judge_flip_rate", "seconds_per_image"]
ROWS = 8
START, END = "<!-- table: python -m docs.generate -->\n", "<!-- end of table -->"


def readme_table() -> str:
    """The best methods of the default run and the best control, best first."""
    run = read_run(RESULTS / "default")
    controls = run.params["report"]["controls"]
    order = ranking(run.metrics, COLUMNS[0])
    control = next(method for method in order if method in controls)
    methods = [method for method in order if method not in controls and not is_upper_bound(run.metrics[method])]
    methods = methods[: ROWS - 1]
    return metrics_table(run.metrics, [method for method in order if method in (*methods, control)], COLUMNS, controls)


def write(file: Path = Path("README.md")) -> None:
    """Put the table where README.md has its markers."""
    text = file.read_text()
    pattern = re.escape(START) + ".*?" + re.escape(END)
    file.write_text(re.sub(pattern, lambda _: START + readme_table() + "\n" + END, text, flags=re.DOTALL))

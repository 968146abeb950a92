"""The table in README.md: eight rows of the default run, from results/default."""

from __future__ import annotations

import re
from pathlib import Path

from docs.generate.results import RESULTS, metrics_table, read_run
from flipside.report.sureness import sentences
from flipside.report.tables import is_upper_bound, one_or_several, ranking

COLUMNS = ["iou_label_free", "iou_val", "dice_label_free", "pixel_ap", "judge_flip_rate", "seconds_per_image"]
ROWS = 8
START, END = "<!-- table: python -m docs.generate -->\n", "<!-- end of table -->"


def readme_table() -> str:
    """The best methods of the default run and the best control, best first; after repetitions with what stands."""
    run = read_run(RESULTS / "default")
    controls = run.params["report"]["controls"]
    columns = [name for name in COLUMNS if any(name in values for values in run.metrics.values())]  # a run may be older
    order = ranking(run.metrics, columns[0])
    control = next(method for method in order if method in controls)
    methods = [method for method in order if method not in controls and not is_upper_bound(run.metrics[method])]
    methods = methods[: ROWS - 1]
    table = metrics_table(run, [method for method in order if method in (*methods, control)], columns)
    if not run.trainings.series:
        return table
    told = [table, one_or_several(run.trainings)]
    if run.trainings.ranked_by == columns[0]:
        told.append(" ".join(sentences(run.metrics, columns[0], controls, run.trainings,
                                       run.params["evaluate"]["confidence"])))
    return "\n\n".join(told)


def write(file: Path = Path("README.md")) -> None:
    """Put the table where README.md has its markers."""
    text = file.read_text()
    pattern = re.escape(START) + ".*?" + re.escape(END)
    file.write_text(re.sub(pattern, lambda _: START + readme_table() + "\n" + END, text, flags=re.DOTALL))

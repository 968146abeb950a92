"""`dvc exp show` with the columns that matter.

DVC lists every metric of every method, every parameter and every dependency, about 750 columns. Here are the parameters
that differ, the reference method's metrics of COLUMNS and the other methods' ranking metric. Failed experiments are
left out: DVC shows their commit's metrics as theirs (`dvc queue status` lists them).
"""

from __future__ import annotations

import subprocess

import typer

from flipside.core import paths
from flipside.core.files import read_json
from flipside.core.params import SECTIONS, load_section

COLUMNS = ("iou_label_free", "dice_label_free", "iou_val", "pixel_ap", "fp_area_healthy", "success_rate", "cv",
           "judge_flip_rate")
OF_A_CLASSIFIER = r"reports/\w+\.json:auc$"


def experiments(context: typer.Context) -> None:
    """List DVC's experiments, best first.

    Shows the parameters that differ and the metrics that matter. All options are passed on to `dvc exp show`, such
    as --csv.
    """
    from flipside.metrics.evaluation import EvaluateParams
    from flipside.regression.lockfile import DVC
    from flipside.report.inputs import needed
    from flipside.report.params import ReportParams

    report = load_section("report", ReportParams)
    reference = load_section("evaluate", EvaluateParams).reference_method
    metrics = read_json(needed(paths.METRICS, "evaluate"))
    masks = any(report.rank_by in values for values in metrics.values())
    command = show_command(report.rank_by if masks else report.rank_by_without_masks, reference)
    raise typer.Exit(subprocess.run([*DVC, *command, *context.args], check=False).returncode)


def show_command(rank_by: str, reference: str) -> list[str]:
    """The arguments of DVC: best experiment first by the reference's ranking metric, only columns that differ.

    `--drop` takes a regular expression that is matched from a column's start: here, one that no wanted column begins.
    """
    from flipside.metrics.registry import higher_is_better

    wanted = ["Experiment$", "Created$", "State$", *(rf"{section}(\.|$)" for section in SECTIONS),
              rf"{reference}\.({'|'.join(COLUMNS)})$", rf"\w+\.{rank_by}$", OF_A_CLASSIFIER]
    order = "desc" if higher_is_better(rank_by) else "asc"
    return ["exp", "show", "--only-changed", "--hide-failed", "--keep", rf"{reference}\.{rank_by}$",
            "--drop", f"(?!{'|'.join(wanted)})", "--sort-by", f"{reference}.{rank_by}", "--sort-order", order]

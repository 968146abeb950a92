"""`dvc exp show` with the columns that matter: `make experiments`.

DVC lists every metric of every method, every parameter and every dependency, about 750 columns. Here are the parameters
that differ, the reference method's metrics of COLUMNS and the other methods' ranking metric. Failed experiments are
left out: DVC shows their commit's metrics as theirs (`dvc queue status` lists them). Options are passed on to DVC.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from flipside.core.files import read_json
from flipside.core.params import SECTIONS, load_section, stage_main
from flipside.metrics.evaluation import EvaluateParams
from flipside.regression.comparison import METRICS_FILE
from flipside.regression.lockfile import DVC
from flipside.report.glossary import higher_is_better
from flipside.report.inputs import needed
from flipside.report.params import ReportParams

COLUMNS = ("iou_val", "dice_val", "pixel_ap", "fp_area_healthy", "success_rate", "cv", "judge_flip_rate")
OF_A_CLASSIFIER = r"reports/\w+\.json:auc$"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, passed_on = parser.parse_known_args()
    report = load_section("report", ReportParams)
    reference = load_section("evaluate", EvaluateParams).reference_method
    metrics = read_json(needed(METRICS_FILE, "evaluate"))
    masks = any(report.rank_by in values for values in metrics.values())
    command = show_command(report.rank_by if masks else report.rank_by_without_masks, reference)
    sys.exit(subprocess.run([*DVC, *command, *passed_on], check=False).returncode)


def show_command(rank_by: str, reference: str) -> list[str]:
    """The arguments of DVC: best experiment first by the reference's ranking metric, only columns that differ.

    `--drop` takes a regular expression that is matched from a column's start: here, one that no wanted column begins.
    """
    wanted = ["Experiment$", "Created$", "State$", *(rf"{section}(\.|$)" for section in SECTIONS),
              rf"{reference}\.({'|'.join(COLUMNS)})$", rf"\w+\.{rank_by}$", OF_A_CLASSIFIER]
    order = "desc" if higher_is_better(rank_by) else "asc"
    return ["exp", "show", "--only-changed", "--hide-failed", "--keep", rf"{reference}\.{rank_by}$",
            "--drop", f"(?!{'|'.join(wanted)})", "--sort-by", f"{reference}.{rank_by}", "--sort-order", order]


if __name__ == "__main__":
    stage_main(main)

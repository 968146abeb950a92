"""The pipeline at its smallest, to look at in minutes: few simulated patients, four methods.

DVC runs it in demo/, a project of its own: a copy of the code, the values of profiles/demo.yaml, a dvc.yaml without
what the other methods need, and a cache. Nothing outside of demo/ changes, and deleting the folder leaves nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from flipside.cli.profile import read_profile
from flipside.cli.ranking import ranking
from flipside.core.files import write_json
from flipside.core.params import DATASETS_FILE, PARAMS_FILE, read_params, value_at

FOLDER = Path("demo")
CODE = ("flipside", "stages")
METHODS = ("flip_mask", "coin", "layer_cam", "intensity")
GENERATORS = ("flip_mask", "coin")
TITLE = "Flipside demo: few simulated patients, short trainings"
# What other methods need, and the checks of their generators.
LEFT_OUT = ("train_encoder", "train_supervised", "invert", "find_attributes", "probe_inpainter", "check_inpainter",
            "published_tables")
NOT_MADE = ("data/latents", "reports/inpainter", "reports/inpainter.json")  # what no other stage then writes
DVC_CONFIG = "[core]\n    no_scm = true\n    analytics = false\n"


def demo() -> None:
    """Run the pipeline at its smallest, in minutes.

    Few simulated patients, four methods, short trainings. It runs in the folder demo and changes nothing outside of
    it. What has been run is not run again, and a killed training goes on.
    """
    from flipside.experiments.project_copy import alone, reproduce

    with alone(FOLDER) as lock:
        write_project(FOLDER)
        reproduce(FOLDER, "report", lock)
    os.chdir(FOLDER)
    print()
    ranking()
    print("These numbers are a demo's: too few patients and too short trainings to compare methods by. `make repro` "
          "runs all methods.")


def write_project(folder: Path) -> None:
    """The demo's code and parameters; artifacts of an earlier run stay, and DVC decides which of them still hold."""
    from flipside.report.trainings import EMPTY, TRAININGS

    for name in CODE:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(".dvc/plots", folder / ".dvc/plots", dirs_exist_ok=True)
    (folder / ".dvc/config").write_text(DVC_CONFIG)
    for file in (DATASETS_FILE, ".dvcignore"):
        shutil.copy(file, folder)
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text())
    for target, content in ((PARAMS_FILE, demo_parameters(read_params())), ("dvc.yaml", demo_pipeline(pipeline))):
        (folder / target).write_text(yaml.safe_dump(content, sort_keys=False, width=120))
    write_json(folder / TRAININGS, EMPTY.model_dump(mode="json"))


def demo_parameters(values: dict[str, Any]) -> dict[str, Any]:
    """The project's parameters with the values of profiles/demo.yaml and no other methods than the demo's."""
    for key, value in read_profile("demo").items():
        value_at(values, key)  # refuses a key that is not there
        holder, _, leaf = key.rpartition(".")
        (value_at(values, holder) if holder else values)[leaf] = value
    return values | {
        "methods": {name: values["methods"][name] for name in METHODS},
        "foreign_maps": {},
        "generators": {name: values["generators"][name] for name in GENERATORS},
        "evaluate": values["evaluate"] | {"reference_method": "coin", "upper_bound": None},
        "segment_scans": values["segment_scans"] | {"method": "coin"},
        "report": values["report"] | {"title": TITLE},
    }


def demo_pipeline(pipeline: dict[str, Any]) -> dict[str, Any]:
    """dvc.yaml without the stages that the demo leaves out, and without their outputs among the deps of others."""
    stages = {name: stage for name, stage in pipeline["stages"].items() if name not in LEFT_OUT}
    for stage in stages.values():
        definition = stage.get("do", stage)
        definition["deps"] = [dep for dep in definition["deps"] if dep not in NOT_MADE]
    return pipeline | {"stages": stages}

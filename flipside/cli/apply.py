"""Trained models on another data set, after `dvc repro`.

Nothing is trained or chosen there: every slice is test, classifier, judge and generators are those in models/, and all
thresholds but the oracle's are the ones that data/masks holds. The stages run unchanged in a workspace of their own,
.scratch/applied/<dataset>/, so the pipeline's artifacts stay as they are; results go to reports/applied/<dataset>/.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from flipside.core import paths
from flipside.core.files import atomic_folder
from flipside.core.params import (
    DATASETS_FILE,
    PARAMS_FILE,
    ParamsError,
    announce,
    check_all,
    file_of,
    read_datasets,
    read_params,
    value_at,
)

if TYPE_CHECKING:
    from flipside.prediction.trained import TrainedRun

CODE = Path(__file__).resolve().parents[2]
ROLES = ("classifier", "judge")
LINKS = ("models", *map(paths.classifier_metrics, ROLES), paths.TRAINING)


def apply(
    dataset: Annotated[str, typer.Option(help="A data set in datasets.yaml.")],
    root: Annotated[str | None, typer.Option(
        help="Its folder, where that is not the one in datasets.yaml.", show_default=False)] = None,
) -> None:
    """Apply the trained models to another data set.

    Nothing is trained or chosen there: every slice is test, and all thresholds but the oracle's are those of the run
    that trained the models. Results go to
    reports/applied/<dataset>, maps and masks to .scratch/applied/<dataset>; the run itself stays as it is.
    """
    # Parameters and models.
    check_all()
    from flipside.prediction.trained import TrainedRun

    run = TrainedRun.open(".")
    check_finished(run)
    params = derived_params(read_params() | read_datasets(), dataset, root, run.window)
    announce("apply", dataset=params["dataset"], **params["datasets"][dataset], filter=params["filter"])

    # The stages, one after the other, in a fresh workspace.
    workspace = Path(".scratch/applied") / dataset
    write_workspace(workspace, params)
    for module, *options in commands(params["methods"]):
        run_stage(workspace, module, *options)

    # Outputs.
    with atomic_folder(Path("reports/applied") / dataset) as folder:
        for file in (workspace / "reports").iterdir():
            if file.is_file() and not file.is_symlink():
                shutil.copy(file, folder)
    print(f"\nreports: reports/applied/{dataset}; maps and masks: {workspace}/data")


def derived_params(params: dict[str, Any], dataset: str, root: str | None, trained_with: str | list) -> dict[str, Any]:
    """Parameters of the workspace, all sections; `trained_with`: the window of the data that the models learnt from."""
    if dataset == params["dataset"]:
        raise ParamsError(f"--dataset {dataset} is what the models were trained on: see reports/metrics.md")
    derived = copy.deepcopy(params)
    derived["dataset"] = dataset
    block = value_at(derived, f"datasets.{dataset}")
    block["root"] = str(Path(root or block["root"]).resolve())  # the workspace is another folder
    block["anomalies"] = False
    # A fingerprint belongs to training scans, a default to their modality: the window is then the one that the models
    # were trained with, or made per scan as theirs.
    window = trained_with if isinstance(params["filter"]["window"], str) else params["filter"]["window"]
    derived["filter"] |= {"test_fraction": 1.0, "use_given_split": False, "window": window}
    derived["offline_augmentation"]["enabled"] = False
    derived["explain"]["splits"] = ["test"]
    derived["methods"] = trained_methods(derived["methods"])
    derived["foreign_maps"] = {}  # they are of the run's own scans
    return derived


def trained_methods(methods: dict[str, Any]) -> dict[str, Any]:
    """The methods that explain with a trained model; those with training slices (`needs: data/slices`) have none here,
    where every slice is test."""
    return {name: block for name, block in methods.items() if block["needs"] != paths.SLICES}


def check_finished(run: TrainedRun) -> None:
    """Refuse to begin before all that the workspace reads of the finished run is there."""
    methods = trained_methods(run.methods)
    models = {*map(paths.classifier, ROLES),
              *(path(name) for name in inverted(methods) for path in (paths.generator, paths.encoder)),
              *(method["needs"] for method in methods.values())}
    wanted = [*LINKS, *(f"{model}/model.safetensors" for model in sorted(models)),
              *(f"{paths.masks(method)}/thresholds.json" for method in methods)]
    missing = [file for file in wanted if not Path(file).exists()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} not found ({len(missing)} of {len(wanted)} inputs are missing): finish "
                                "the run whose models are applied (`dvc repro`)")


def write_workspace(workspace: Path, params: dict[str, Any]) -> None:
    """An empty project with these parameters and links to the trained models and what is reported of them."""
    shutil.rmtree(workspace, ignore_errors=True)
    (workspace / "reports").mkdir(parents=True)
    for name in LINKS:
        (workspace / name).symlink_to(Path(name).resolve())
    for file in (PARAMS_FILE, DATASETS_FILE):
        sections = {section: content for section, content in params.items() if file_of(section) == file}
        (workspace / file).write_text(yaml.safe_dump(sections, sort_keys=False))


def inverted(methods: dict[str, Any]) -> list[str]:
    """The generators among whose latent codes a method searches."""
    return sorted({Path(method["needs"]).name for method in methods.values()
                   if method["needs"] == paths.latents(Path(method["needs"]).name)})


def commands(methods: dict[str, Any]) -> list[tuple[str, ...]]:
    """Modules with their options, in the order of the pipeline."""
    from flipside.prediction.trained import WINDOW

    return [
        ("stages.extract_slices",), ("stages.split_patients",), ("stages.draw_anomalies",),
        *(("stages.invert", "--generator", generator) for generator in inverted(methods)),
        *(("stages.explain", "--method", method) for method in methods),
        ("stages.judge_counterfactuals",), ("stages.measure_realism",),
        *(("stages.extract_masks", "--method", method, "--carry-from", str(Path(paths.MASKS).resolve()))
          for method in methods),
        ("stages.evaluate",), ("flipside.cli.applied_report", "--source", str(Path(WINDOW).resolve())),
    ]


def run_stage(workspace: Path, module: str, *options: str) -> None:
    """One stage of this code in the workspace, by this interpreter; its output goes through."""
    print(f"\n{' '.join((module, *options))}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(CODE)}
    result = subprocess.run([sys.executable, "-m", module, *options], cwd=workspace, env=environment, check=False)
    if result.returncode:
        raise RuntimeError(f"{module} failed with exit status {result.returncode}; its own message stands above")

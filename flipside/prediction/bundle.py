"""A bundle: one folder with all that `flipside predict` reads of a finished run, and a model card.

Its files lie where a run has them. What names scans or patients of the training data stays behind: of the manifests
only the window, the channels and the counts go along, and the salt of the patients' hashes does not.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from flipside.cohort.windowing import window_text
from flipside.core import paths
from flipside.core.files import atomic_folder, read_json, write_json
from flipside.core.image_size import image_shape
from flipside.core.params import (
    DATASETS_FILE,
    PARAMS_FILE,
    ParamsError,
    load_section,
    read_datasets,
    read_params,
    value_at,
)
from flipside.prediction.fingerprint import Fingerprint
from flipside.prediction.trained import WINDOW, TrainedRun
from flipside.report.params import ReportParams
from flipside.report.tables import markdown_table

CARD, LICENCE = "README.md", "LICENCE.md"
SECTIONS = ("profile", "dataset", "seed", "image_size", "runtime", "extract", "filter", "strong_supervision", "explain",
            "methods", "masks", "segment_scans", "report")
MANIFEST = ("dataset", "anomalies", "window", "channels", "counts")
SALT = "flipside bundle"  # the run's own would help to guess the patients behind its hashes


def write_bundle(bundle: Path, run: TrainedRun, methods: Sequence[str]) -> None:
    """Write the bundle of a run with some of its methods, whole or not at all.

    Raises ParamsError where something stands at `bundle` already, FileNotFoundError for a run that isn't finished.
    """
    if bundle.exists():
        raise ParamsError(f"{bundle} is there already: remove it, or name another folder with -o")
    thresholds = {method: run.threshold(method) for method in methods}
    models = {model for method in methods for model in run.models(method)}
    for file in (*(f"{model}/model.safetensors" for model in sorted(models)), paths.METRICS,
                 paths.classifier_metrics("classifier")):
        if not (run.folder / file).is_file():
            raise FileNotFoundError(f"{run.folder / file} not found: finish the run (`dvc repro`)")
    params, manifest = bundled_params(run, methods), read_json(run.folder / WINDOW)
    with atomic_folder(bundle) as folder:
        (folder / PARAMS_FILE.name).write_text(yaml.safe_dump(params, sort_keys=False))
        block = value_at(read_datasets(run.folder / DATASETS_FILE), f"datasets.{run.dataset}") | {"root": "."}
        (folder / DATASETS_FILE.name).write_text(yaml.safe_dump({"datasets": {run.dataset: block}}, sort_keys=False))
        _write(folder / WINDOW, {key: manifest[key] for key in MANIFEST})
        for model in models:
            shutil.copytree(run.folder / model, folder / model)
        for method in methods:
            file = f"{paths.masks(method)}/thresholds.json"
            _write(folder / file, read_json(run.folder / file))
        metrics = read_json(run.folder / paths.METRICS)
        _write(folder / paths.METRICS, {method: metrics[method] for method in methods if method in metrics})
        _write(folder / paths.classifier_metrics("classifier"),
               read_json(run.folder / paths.classifier_metrics("classifier")))
        fingerprint = Fingerprint.read(run)
        if fingerprint is not None:
            fingerprint.write(folder)
        (folder / CARD).write_text(model_card(run, methods, thresholds, manifest), encoding="utf-8")
        (folder / LICENCE).write_text(licence_note(run), encoding="utf-8")


def bundled_params(run: TrainedRun, methods: Sequence[str]) -> dict[str, Any]:
    """The sections of params.yaml that a prediction reads, with these methods alone."""
    params = read_params(run.folder / PARAMS_FILE)
    params = {section: params[section] for section in SECTIONS if section in params}
    params["methods"] = {method: params["methods"][method] for method in methods}
    params["extract"] = params["extract"] | {"patient_salt": SALT}
    return params


def model_card(run: TrainedRun, methods: Sequence[str], thresholds: dict[str, Any], manifest: dict[str, Any]) -> str:
    """What the models are, what they learnt from, how well they did and what they can't, in Markdown."""
    report = load_section("report", ReportParams, run.folder / PARAMS_FILE)
    metrics = {name: values for name, values in read_json(run.folder / paths.METRICS).items() if name in methods}
    rank_by = next((name for name in (report.rank_by, report.rank_by_without_masks)
                    if any(name in values for values in metrics.values())), None)
    note = "On the test part of the run."
    table = "" if rank_by is None else markdown_table(metrics, rank_by, report.controls, note)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    rows, columns = image_shape(run.image_size)
    strong = read_params(run.folder / PARAMS_FILE).get("strong_supervision", [])
    return environment.get_template("card.md.jinja").render(
        run=run, methods=methods, thresholds=thresholds, counts=manifest["counts"], anomalies=manifest["anomalies"],
        window=window_text(run.window), size=f"{rows} x {columns}", strong=strong,
        classifier=read_json(run.folder / paths.classifier_metrics("classifier")),
        table=table.removeprefix("# Ranking").strip())


def licence_note(run: TrainedRun) -> str:
    """Which licences count."""
    source = f"see {run.block.page}" if run.block.page else "ask whoever gave you the data"
    return (f"# Licence\n\nThe code that reads this bundle, Flipside, is under the Apache License 2.0.\n\n"
            f"The weights in `models/` were learnt from the data set `{run.dataset}`. Its own terms may limit what may "
            f"be done with them, commercial use and passing them on above all: {source}. Whoever exports a bundle "
            "decides under which terms it is passed on, and should write them here.\n")


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)

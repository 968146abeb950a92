"""How long a method explains, and how long what it explains with was trained."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flipside.core.files import read_json
from flipside.metrics.evaluation import EvaluationError
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts


class Time(Family):
    """As the stages measured it on the device of the run; it rests on no test slices."""

    place = 130
    theme = "Time"
    n = ""
    metrics = {
        "seconds_per_image": Metric("s/image", "seconds for one explanation", False, tables=("ranking", "terminal"),
                                    absent="the maps were made elsewhere"),
        "seconds_training": Metric("training s", "seconds for which the method's own generator was trained, with its "
                                   "encoder, student or the search for its attributes where it has these, on the "
                                   "device of the run", False, absent="this method trains nothing of its own"),
    }

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        seconds = artifacts.explanations.timing["seconds_per_image"]  # None: made elsewhere
        return {**({} if seconds is None else {"seconds_per_image": seconds}), **training_metrics(artifacts.model)}


def training_metrics(model: str) -> dict[str, float]:
    """How long what a method explains with was trained; nothing for one that uses the classifier alone.

    For inverted slices (`data/latents/...`) that is their generator and its encoder, for found attributes
    (`models/attributes/...`) their generator and the search for them, for a segmenter that a generator taught both.
    """
    seconds = 0.0
    for folder, stage in trainings(model).items():
        file = Path("reports/training") / folder / "timing.json"
        if not file.is_file():
            raise EvaluationError(f"{file} not found: run `dvc repro {stage}`")
        seconds += read_json(file)["seconds"]
    return {"seconds_training": seconds} if trainings(model) else {}


def trainings(model: str) -> dict[str, str]:
    """{folder of reports/training: its stage} of what a method explains with; empty for the classifier alone."""
    name = Path(model).name
    if model.startswith("models/generators/"):
        return {name: f"train_generator@{name}"}
    if model.startswith("data/latents/"):
        return {name: f"train_generator@{name}", f"{name}_encoder": f"train_encoder@{name}"}
    if model.startswith("models/attributes/"):
        return {name: f"train_generator@{name}", f"{name}_attributes": f"find_attributes@{name}"}
    if model == "models/segmenters/flip_mask":
        return {name: f"train_generator@{name}", f"{name}_segmenter": "train_segmenter"}
    return {f"{name}_segmenter": f"train_{name}"} if model.startswith("models/segmenters/") else {}

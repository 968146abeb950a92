"""What earlier stages wrote down of a method, as its metrics."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from flipside.core.files import read_json
from flipside.metrics.summary import CALLED_ABNORMAL, EvaluationError


def training_metrics(model: str) -> dict[str, float]:
    """How long what a method explains with was trained; nothing for one that uses the classifier alone.

    For inverted slices (`data/latents/...`) that is their generator and its encoder, for found attributes
    (`models/attributes/...`) their generator and the search for them.
    """
    name = Path(model).name
    if model.startswith("models/generators/"):
        trained = {name: f"train_generator@{name}"}
    elif model.startswith("data/latents/"):
        trained = {name: f"train_generator@{name}", f"{name}_encoder": f"train_encoder@{name}"}
    elif model.startswith("models/attributes/"):
        trained = {name: f"train_generator@{name}", f"{name}_attributes": f"find_attributes@{name}"}
    else:
        return {}
    seconds = 0.0
    for folder, stage in trained.items():
        file = Path("reports/training") / folder / "timing.json"
        if not file.is_file():
            raise EvaluationError(f"{file} not found: run `dvc repro {stage}`")
        seconds += read_json(file)["seconds"]
    return {"seconds_training": seconds}


def inversion_metrics(model: str) -> dict[str, float]:
    """How close the inverted test slices are that a method starts from; nothing for one that inverts none.

    inversion_error: mean |x - G(x)|, images in [-1,1]; inversion_decision_kept: share on the same side of f = 0.5.
    """
    if not model.startswith("data/latents/"):
        return {}
    file = Path(model) / "index.csv"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro invert@{Path(model).name}`")
    slices = pd.read_csv(file)
    slices = slices[slices["split"] == "test"]
    kept = (slices["f_x"] >= CALLED_ABNORMAL) == (slices["f_reconstruction"] >= CALLED_ABNORMAL)
    return {"inversion_error": slices["absolute_error"].mean(), "inversion_decision_kept": kept.mean(),
            "n_inversion": len(slices)}


def randomisation_metrics(method: str) -> dict[str, float]:
    """What data/sanity says of a method; nothing where the check does not apply (the file holds the reason)."""
    file = Path("data/sanity") / f"{method}.json"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro explain@{method}`")
    found = read_json(file)
    if "reason" in found:
        return {}
    return {"sanity_randomisation_passed": int(found["changed"]), "randomisation_similarity": found["spearman_all"],
            "randomisation_ssim": found["ssim_all"], "n_randomisation": found["n_slices"],
            **({"randomisation_similarity_head": found["spearman_head"]} if "spearman_head" in found else {})}

"""What earlier stages wrote down of a method, as its metrics."""

from __future__ import annotations

from pathlib import Path

from stages.common.files import read_json
from stages.evaluate.metrics import EvaluationError


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


def randomisation_metrics(method: str) -> dict[str, float]:
    """What data/sanity says of a method; nothing where the check does not apply (the file holds the reason)."""
    file = Path("data/sanity") / f"{method}.json"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro check_randomisation@{method}`")
    found = read_json(file)
    if "reason" in found:
        return {}
    return {"sanity_randomisation_passed": int(found["changed"]), "randomisation_similarity": found["spearman_all"],
            "randomisation_ssim": found["ssim_all"], "randomisation_similarity_head": found["spearman_head"],
            "n_randomisation": found["n_slices"]}

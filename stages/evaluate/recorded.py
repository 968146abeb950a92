"""What earlier stages wrote down of a method, as its metrics."""

from __future__ import annotations

from pathlib import Path

from stages.common.files import read_json
from stages.evaluate.metrics import EvaluationError


def training_metrics(model: str) -> dict[str, float]:
    """How long a method's own generator was trained; nothing for a method that explains with the classifier alone."""
    if not model.startswith("models/generators/"):
        return {}
    name = Path(model).name
    file = Path("reports/training") / name / "timing.json"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro train_generator@{name}`")
    return {"seconds_training": read_json(file)["seconds"]}


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

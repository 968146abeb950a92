"""Where the artifacts are that stages hand to each other, relative to the project's folder."""

from __future__ import annotations

EXTRACTED = "data/extracted"
FILTERED, FILTERED_TRUTH, FILTERED_CLEAN = "data/filtered", "data/filtered_truth", "data/filtered_clean"
SLICES, TRUTH, CLEAN = "data/slices", "data/truth", "data/clean"
PATCHES = "data/patches"
FOREIGN = "data/foreign"
EXPLANATIONS = "data/explanations"
MASKS = "data/masks"
SEGMENTATIONS = "data/segmentations"
JUDGEMENTS = "data/judgements"
REALISM = "data/realism"
PROBES = "data/probes"
SCRATCH = ".scratch"  # of unfinished work; no artifact, and undeclared to DVC

CLASSIFIER = "models/classifiers/classifier"
JUDGE = "models/classifiers/judge"

METRICS, CASES = "reports/metrics.json", "reports/cases.csv"
TRAINING = "reports/training"


def classifier(role: str) -> str:
    """A classifier's model; `role`: classifier or judge."""
    return f"models/classifiers/{role}"


def generator(name: str) -> str:
    """A trained generator's model."""
    return f"models/generators/{name}"


def encoder(name: str) -> str:
    """The model of a generator's encoder."""
    return f"models/encoders/{name}"


def segmenter(name: str) -> str:
    """A trained segmenter: `flip_mask`'s student, or `supervised`."""
    return f"models/segmenters/{name}"


def latents(name: str) -> str:
    """The slices inverted to a generator's latent codes."""
    return f"data/latents/{name}"


def attributes(name: str) -> str:
    """The attributes found in a generator's style space."""
    return f"models/attributes/{name}"


def foreign(method: str) -> str:
    """A method's maps or masks that were made elsewhere, as the user put them there."""
    return f"{FOREIGN}/{method}"


def explanations(method: str) -> str:
    """A method's attribution maps and, where it makes them, counterfactuals; its parameters and randomisation check."""
    return f"{EXPLANATIONS}/{method}"


def masks(method: str) -> str:
    """The lesion masks made of a method's maps."""
    return f"{MASKS}/{method}"


def training_report(name: str) -> str:
    """Parameters, learning curves and timing of a training, by a classifier's role, a generator's name,
    `<generator>_encoder` or `<segmenter>_segmenter`."""
    return f"{TRAINING}/{name}"


def classifier_metrics(role: str) -> str:
    """A classifier's scores on the test split."""
    return f"reports/{role}.json"

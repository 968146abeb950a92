"""How good the explained classifier and the judge are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from flipside.report.inputs import ReportInputs
from flipside.report.sections.section import Section
from flipside.report.tables import number


@dataclass(frozen=True)
class QualityRow:
    """One classifier's own metrics."""

    role: str
    cells: list[str]


@dataclass(frozen=True)
class ConfusionRow:
    """Test slices of one label."""

    name: str
    counts: list[int]


@dataclass(frozen=True)
class Confusion:
    """How many test slices a classifier calls what they are."""

    role: str
    names: list[str]
    rows: list[ConfusionRow]


@dataclass(frozen=True)
class Classifiers(Section):
    """The metrics of both classifiers, and their confusion matrices."""

    id = "classifiers"
    link = "Classifiers"
    heading = "Classifier and judge"

    architectures: str
    metrics: list[str]
    quality: list[QualityRow]
    confusion: list[Confusion]

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        metrics = list(dict.fromkeys(key for values in inputs.quality.values() for key in values))
        quality = [QualityRow(role, [number(values.get(key)) for key in metrics])
                   for role, values in inputs.quality.items()]
        confusion = [count_confusion(role, calls) for role, calls in inputs.confusion.items()]
        return cls(describe_architectures(inputs), metrics, quality, confusion)


def describe_architectures(inputs: ReportInputs) -> str:
    """What kinds of networks classifier and judge are, and what it means where they are of one kind or imported."""
    models = inputs.made_with["models"]
    classifier, judge = (name_architecture(models[role]) for role in ("classifier", "judge"))
    said = f"The classifier is a {classifier}, the judge a {judge}."
    if classifier == judge:
        said = (f"Both are a {judge}: a change that fools one may fool the other because they are built alike, so the "
                "judge's flips are weaker evidence. `classifiers.judge.architecture` makes it another.")
    if any(is_imported(models[role]) for role in ("classifier", "judge")):
        said += (" What an imported network was trained on is not known here: patients of this run would flatter its "
                 "scores.")
    return said


def is_imported(parameters: dict[str, Any]) -> bool:
    """Whether a classifier was trained elsewhere."""
    return parameters.get("source", "trained") != "trained"


def name_architecture(parameters: dict[str, Any]) -> str:
    """A classifier's network, and where it comes from if it was not trained in this run."""
    source = parameters.get("source")
    if not is_imported(parameters):
        return parameters["architecture"]
    if source == "torchscript":
        return f"TorchScript file, {parameters['checkpoint']} (imported, not trained here)"
    origin = parameters["module"] if source == "python" else source
    return f"{parameters['architecture']} of {origin} (imported, not trained here)"


def count_confusion(role: str, calls: pd.DataFrame) -> Confusion:
    """The confusion matrix of a classifier; calls: columns actual and predicted, a row for each test slice."""
    counts = pd.crosstab(calls["actual"], calls["predicted"])
    names = sorted({*counts.index, *counts.columns})
    counts = counts.reindex(index=names, columns=names, fill_value=0)
    return Confusion(role, names, [ConfusionRow(name, counts.loc[name].tolist()) for name in names])

"""Published ablations as edits of params.yaml: experiments/<name>.yaml lists the rows of a publication's table.

A row becomes one DVC experiment per seed (`flipside ablations`); a row that is params.yaml as it stands is the commit's
own run and needs none. `flipside ablation-tables` sets the results beside the published numbers.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from flipside.core.params import Params, ParamsError, value_at

EXPERIMENTS = Path("experiments")


class Row(Params):
    method: str
    """The method whose metrics the row shows."""
    says: str
    """What is different in this row, in a few words."""
    after: str | None = None
    """The row whose values this row also has, and with which it is compared."""
    published_after: str | None = None
    """The row with which the publication compares this one, where that is not the row of `after`."""
    set: dict[str, Any]
    """Values by dotted key of params.yaml; null is the value that params.yaml has."""
    as_published: dict[str, Any] = {}
    """Further values of the published run, by dotted key of params.yaml; set only where asked for."""
    published: dict[str, float]
    """The published numbers, by the publication's column."""
    measured_as: dict[str, str] = {}
    """Our metric for a column of the publication, where it is not the one that the ablation names for it."""


class Ablation(Params):
    """A file in experiments/."""

    title: str
    """The publication and its table."""
    measured_as: dict[str, str]
    """Our metric for each column of the publication, computed as the publication's code does."""
    by_profile: dict[str, dict[str, dict[str, Any]]] = {}
    """Values that a generator has in every row, by profile and generator, such as a depth that some row needs."""
    rows: dict[str, Row] = Field(min_length=1)
    """The rows of the table, by name."""
    notes: list[str] = []
    """What a reader of the table has to know; printed below it."""

    def metric(self, row: str, column: str) -> str:
        """Our metric beside a published number."""
        return self.rows[row].measured_as.get(column, self.measured_as[column])


def read_ablation(name: str) -> Ablation:
    """experiments/<name>.yaml, checked. Raises ParamsError where there is no such file."""
    file = EXPERIMENTS / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
        raise ParamsError(f"no ablation {name!r}: {file} not found; there are: {known}")
    return Ablation.model_validate(yaml.safe_load(file.read_text()))


def resolved(ablation: Ablation, row: str, as_published: bool) -> dict[str, Any]:
    """A row's values of dotted keys, those of the rows before it included; the later row's value counts."""
    if row not in ablation.rows:
        raise ParamsError(f"no row {row!r}; there are: {', '.join(ablation.rows)}")
    this = ablation.rows[row]
    before = resolved(ablation, this.after, as_published) if this.after else {}
    return before | this.set | (this.as_published if as_published else {})


def edits(ablation: Ablation, row: str, as_published: bool, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """The values of a row, with those of its profile, that differ from params.yaml; seed 0 is that of params.yaml.

    A further seed changes the random numbers of the row's own generator; data and classifier stay, and so does a row
    of a method that has none.
    """
    generator = ablation.rows[row].method
    common = ablation.by_profile.get(params["profile"], {}).get(generator, {})
    if seed and generator in params["generators"]:
        common = common | {"seed_offset": seed}
    wanted = {f"generators.{generator}.{key}": value for key, value in common.items()}
    wanted |= resolved(ablation, row, as_published)
    return {key: value for key, value in wanted.items()
            if value is not None and not is_same(value_at(params, key), value)}


def edited(params: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of params.yaml's values with those of some dotted keys replaced."""
    result = copy.deepcopy(params)
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        functools.reduce(dict.__getitem__, parents, result)[leaf] = value
    return result


def is_same(first: Any, second: Any) -> bool:
    """Whether two values of a parameter are the same; DVC writes 5e-05, which YAML takes for text."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(is_same, first, second))
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, str) != isinstance(second, str):
        try:
            return float(first) == float(second)
        except (TypeError, ValueError):
            return False
    return first == second


def experiment_name(ablation: str, row: str, as_published: bool, seed: int) -> str:
    """The name of a row's DVC experiment."""
    name = f"{ablation}-{row}{'-as-published' if as_published else ''}{f'-seed{seed}' if seed else ''}"
    return name.replace("_", "-")


def written(value: Any) -> str:
    """A value as `dvc exp run -S` takes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Published series of experiments as edits of params.yaml: `python -m flipside.published.ablations appendix_a`.

Queues one DVC experiment per row of experiments/<series>.yaml and seed; `dvc exp run --run-all -j 1` then runs them
(`make ablations` does both), and ablation_tables.py prints their numbers beside the published ones. A row
that is params.yaml as it stands is the commit's own run and needs no experiment; one that has been run is not queued
again. `--as-published` takes a publication's own weights and faults along. An experiment ends with the metrics: its
report is that of the commit until `dvc exp apply` and `dvc repro`.
"""

from __future__ import annotations

import argparse
import copy
import functools
import shlex
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from flipside.core.params import Params, ParamsError, read_params, stage_main, value_at
from flipside.regression.lockfile import DVC, run

EXPERIMENTS = Path("experiments")


class Row(Params):
    method: str
    """Whose metrics stand in this row."""
    says: str
    """What sets the row apart."""
    after: str | None = None
    """The row whose values this one has too, and which it is compared with."""
    published_after: str | None = None
    """The row that the publication compares this one with, where that is another than `after`."""
    set: dict[str, Any]
    """Dotted key of params.yaml -> value; null: params.yaml's own again."""
    as_published: dict[str, Any] = {}
    """What the published run had besides."""
    published: dict[str, float]
    """The publication's column -> its number."""
    measured_as: dict[str, str] = {}
    """Column -> metric, where it is not the series'."""


class Series(Params):
    title: str
    measured_as: dict[str, str]
    """The publication's column -> our metric that is computed as it is there."""
    by_profile: dict[str, dict[str, dict[str, Any]]] = {}
    """Profile -> generator -> what it has there in every row, such as a depth that some row needs."""
    rows: dict[str, Row] = Field(min_length=1)
    notes: list[str] = []
    """What a reader of the table has to know; printed below it."""

    def metric(self, row: str, column: str) -> str:
        """Our metric beside a published number."""
        return self.rows[row].measured_as.get(column, self.measured_as[column])


def read_series(name: str) -> Series:
    """experiments/<name>.yaml, checked."""
    file = EXPERIMENTS / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
        raise ParamsError(f"no series {name!r}: {file} not found; there are: {known}")
    return Series.model_validate(yaml.safe_load(file.read_text()))


def resolved(series: Series, row: str, as_published: bool) -> dict[str, Any]:
    """A row's values of dotted keys, those of the rows before it included; the later row's value counts."""
    if row not in series.rows:
        raise ParamsError(f"no row {row!r}; there are: {', '.join(series.rows)}")
    this = series.rows[row]
    before = resolved(series, this.after, as_published) if this.after else {}
    return before | this.set | (this.as_published if as_published else {})


def edits(series: Series, row: str, as_published: bool, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """The values of a row, with the profile's, that differ from params.yaml's; seed 0 is that of params.yaml.

    A further seed is another start and order of the row's own generator; data and classifier stay.
    """
    generator = series.rows[row].method
    common = series.by_profile.get(params["profile"], {}).get(generator, {}) | ({"seed_offset": seed} if seed else {})
    wanted = {f"generators.{generator}.{key}": value for key, value in common.items()}
    wanted |= resolved(series, row, as_published)
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


def experiment_name(series: str, row: str, as_published: bool, seed: int) -> str:
    """The name of a row's DVC experiment."""
    name = f"{series}-{row}{'-as-published' if as_published else ''}{f'-seed{seed}' if seed else ''}"
    return name.replace("_", "-")


def written(value: Any) -> str:
    """A value in the words of `dvc exp run -S`."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", help="a file in experiments/, without its ending")
    parser.add_argument("rows", nargs="*", help="default: all of them")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each row (default: 1)")
    parser.add_argument("--as-published", action="store_true")
    parser.add_argument("--print", action="store_true", help="print the commands and queue nothing")
    arguments = parser.parse_args()
    series, params = read_series(arguments.series), read_params()
    done = [] if arguments.print else run(*DVC, "exp", "list", "--name-only").split()
    for row in arguments.rows or series.rows:
        for seed in range(arguments.seeds):
            name = experiment_name(arguments.series, row, arguments.as_published, seed)
            changed = edits(series, row, arguments.as_published, seed, params)
            if not changed:
                print(f"# {name}: params.yaml as it stands, `dvc repro`")
            elif name in done:
                print(f"# {name}: has been run (`dvc exp remove {name}` forgets it)")
            else:
                options = [part for key, value in changed.items() for part in ("-S", f"{key}={written(value)}")]
                command = ["exp", "run", "--queue", "--name", name, *options, "evaluate"]
                print(shlex.join(["dvc", *command]), flush=True)
                if not arguments.print:
                    run(*DVC, *command, "--quiet")


if __name__ == "__main__":
    stage_main(main)

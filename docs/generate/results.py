"""Pages of runs, from results/<run>/{params.yaml,metrics.json,run.json} and, where it was repeated, trainings.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from docs.generate.tables import cell, code, table
from flipside.core.files import read_json
from flipside.core.image_size import image_shape
from flipside.metrics.registry import higher_is_better, label
from flipside.report.sureness import sureness_table
from flipside.report.tables import is_upper_bound, mark, markdown_cell, one_or_several, ranking, warnings
from flipside.report.trainings import Trainings, read_trainings

RESULTS = Path("results")
FACTS, RANKING = "<!-- facts of the run -->", "<!-- ranked table -->"  # where a page has them
BARE = f"{FACTS}\n\n{RANKING}\n"
REQUIRED = {"title", "command", "profile", "hardware", "seconds", "commit", "date", "test_split", "order", "columns",
            "notes"}


@dataclass(frozen=True)
class Run:
    """One folder of results/."""

    name: str
    params: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    about: dict[str, Any]  # run.json
    trainings: Trainings  # its repetitions; EMPTY where there are none


def read_runs(folder: Path = RESULTS) -> list[Run]:
    """All runs, in the order of their `order` in run.json.

    Raises ValueError, naming the file and the key, where run.json lacks one.
    """
    return sorted((read_run(file.parent) for file in folder.glob("*/run.json")), key=lambda run: run.about["order"])


def read_run(folder: Path) -> Run:
    """One run; ValueError where run.json lacks a key, or trainings.json is of another run."""
    about = read_json(folder / "run.json")
    if missing := sorted(REQUIRED - set(about)):
        raise ValueError(f"{folder / 'run.json'}: missing key `{missing[0]}`; expected {', '.join(sorted(REQUIRED))}")
    params, metrics = yaml.safe_load((folder / "params.yaml").read_text()), read_json(folder / "metrics.json")
    trainings = read_trainings(folder / "trainings.json")
    if trainings.series and (reason := trainings.misfit(params, metrics, trainings.ranked_by)):
        raise ValueError(f"{folder / 'trainings.json'} is not of this run: {reason}. Copy params.yaml, metrics.json "
                         "and trainings.json of one run")
    return Run(folder.name, params, metrics, about, trainings)


def filled(markdown: str, run: Run) -> str:
    """A run's page with its facts and its ranked table in place of the two markers."""
    return (f"# {run.about['title']}\n\n" + markdown).replace(FACTS, facts(run)).replace(RANKING, ranked(run))


def facts(run: Run) -> str:
    """What was run, on what, how long, from which commit."""
    about, params = run.about, run.params
    rows = [("command", code(about["command"])), ("profile", code(about["profile"])),
            ("data set", code(params["dataset"])),
            ("image size", " x ".join(map(str, image_shape(params["image_size"])))),
            ("seed", str(params["seed"])), ("test split", about["test_split"]),
            ("hardware", about["hardware"] or "not recorded"), ("time", duration(about["seconds"])),
            ("commit", f"{code(about['commit'])}, {about['date']}")]
    folder = f"results/{run.name}"
    return "\n".join([table(("run", code(run.name)), [(name, cell(text)) for name, text in rows]), "",
                      *(f"* {note}" for note in about["notes"]), "",
                      f"Files: `{folder}/metrics.json`, `{folder}/params.yaml`, `{folder}/run.json`."])


def duration(seconds: float | None) -> str:
    """Minutes for a reader."""
    return "not recorded" if seconds is None else f"{seconds / 60:.0f} minutes ({seconds:,} s)"


def ranked(run: Run) -> str:
    """All methods, best first by the first of the run's columns, with what a reader must know of them."""
    names = run.about["columns"]
    first = names[0]
    notes = [f"Ranked by {label(first)}. ↑ more is better, ↓ less is better, –: no such number. What a column means "
             "stands in [Metrics](../../reference/metrics.md).", one_or_several(run.trainings), *warnings(run.metrics)]
    return "\n\n".join([metrics_table(run, ranking(run.metrics, first), names), *notes, *sureness(run, first)])


def sureness(run: Run, rank_by: str) -> list[str]:
    """Which differences stand with other patients and trainings; nothing where the run was not repeated, or was ranked
    by another metric then."""
    if run.trainings.ranked_by != rank_by:
        return []
    return [sureness_table(run.metrics, rank_by, run.trainings, run.params["evaluate"]["confidence"])]


def metrics_table(run: Run, methods: list[str], names: list[str]) -> str:
    """A row per method, a column per metric, with intervals as in reports/metrics.md."""
    controls = run.params["report"]["controls"]
    header = ["method", *(f"{label(name)} {'↑' if higher_is_better(name) else '↓'}" for name in names)]
    return table(header, [
        [marked(method, run.metrics[method], controls),
         *(markdown_cell(run.metrics, method, name, run.trainings, name == names[0]) for name in names)]
        for method in methods], numbers_from=1)


def marked(method: str, values: dict[str, float], controls: list[str]) -> str:
    """A method's name with what sets it apart."""
    badge = " *(control)*" if method in controls else " *(upper bound)*" if is_upper_bound(values) else ""
    return code(method) + badge + mark(values)

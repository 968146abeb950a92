"""Train everything that is trained again under other seeds, to see how far results hang on one training."""

from __future__ import annotations

import enum
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flipside.core import paths
from flipside.core.files import read_json, write_json
from flipside.core.params import (
    PARAMS_FILE,
    ParamsError,
    check_all,
    load_section,
    load_value,
    read_datasets,
    read_params,
)

if TYPE_CHECKING:
    from flipside.report.trainings import Trainings

COPY = Path(".scratch/repeat")
TARGET = "evaluate"


class Rows(enum.StrEnum):
    """What is trained again."""

    ALL = "all"
    GENERATORS = "generators"


def repeat(
    seeds: Annotated[int, typer.Option(min=2, help="Trainings in all, the run's own included.")] = 3,
    rows: Annotated[Rows, typer.Option(
        help="`generators`: with the same classifier; `all`: then with further classifiers, too.")] = Rows.ALL,
) -> None:
    """Train again under other seeds.

    Everything else stays the same: data, parameters, judge. The metrics go to reports/trainings.json, which the report
    shows beside the run's own; nothing else of the project changes. Repetitions run one after the other in
    .scratch/repeat. What has been run is not run again, and a killed training goes on.
    """
    from flipside.experiments.project_copy import alone, open_copy, reproduce, write_values
    from flipside.experiments.repetition import repetitions
    from flipside.report.trainings import SERIES, TRAININGS

    with alone(COPY) as lock:
        check_all()
        if rows == Rows.ALL and read_params()["classifiers"]["classifier"].get("source", "trained") != "trained":
            raise ParamsError(f"{PARAMS_FILE}: `classifiers.classifier` is imported and can't be trained again: use "
                              "--rows generators (`make repeat ROWS=generators`)")
        check_fresh()
        trainings, text, params = begin(), PARAMS_FILE.read_text(), read_params()
        wanted = list(repetitions(seeds, tuple(SERIES) if rows == Rows.ALL else ("generators",)))
        left = [one for one in wanted if one.seed not in trainings.series.get(one.series, {})]
        print(f"{len(wanted)} repetitions, {len(wanted) - len(left)} of them have been run", flush=True)
        if left:
            open_copy(COPY, TARGET)
        for one in left:
            print(f"\n{one.name}: {SERIES[one.series]}", flush=True)
            write_values(text, one.values(params), COPY / PARAMS_FILE)
            reproduce(COPY, TARGET, lock)
            trainings = trainings.adding(one.series, one.seed,
                                         shown(read_json(COPY / paths.METRICS), trainings.ranked_by))
            write_json(TRAININGS, trainings.model_dump(mode="json"))
        write_json(TRAININGS, trainings.model_dump(mode="json"))
        shutil.rmtree(COPY, ignore_errors=True)
    told = [f"{trainings.count(series)} trainings ({meaning})" for series, meaning in SERIES.items()
            if trainings.count(series)]
    print(f"{TRAININGS}: {', '.join(told)}. `dvc repro` draws the report with them.")


def check_fresh() -> None:
    """Refuse where the run isn't that of the parameters and the code: its repetitions would be of another one."""
    from flipside.regression.lockfile import stale_stages

    if stale := stale_stages(TARGET):
        name, reasons = next(iter(stale.items()))
        raise RuntimeError(f"the run is out of date: {name} ({', '.join(reasons[:3])})"
                           + (f" and {len(stale) - 1} more stages" if len(stale) > 1 else "")
                           + ". Only a finished run is repeated: `dvc repro` first")


def begin() -> Trainings:
    """What is known of this run: its metrics, its neighbours' differences, and the repetitions that have been run."""
    from flipside.core.index_tables import read_index
    from flipside.core.store import SliceStore
    from flipside.experiments.neighbours import compare_neighbours
    from flipside.metrics.evaluation import EvaluateParams
    from flipside.report.inputs import needed
    from flipside.report.params import ReportParams
    from flipside.report.tables import ranking
    from flipside.report.trainings import Trainings, counting, fingerprint, read_trainings

    report, parameters = load_section("report", ReportParams), read_params() | read_datasets()
    metrics = read_json(needed(paths.METRICS, "evaluate"))
    masks = any(report.rank_by in values for values in metrics.values())
    rank_by = report.rank_by if masks else report.rank_by_without_masks
    data = SliceStore.open(paths.SLICES).fingerprint
    recorded, reason = counting(read_trainings().model_copy(update={"ranked_by": rank_by}), parameters, metrics,
                                rank_by, data)
    if reason:
        print(reason, flush=True)
    order = [method for method in ranking(metrics, rank_by) if rank_by in metrics[method]]
    return Trainings(
        parameters=fingerprint(parameters), data=data, ranked_by=rank_by, run=shown(metrics, rank_by),
        series={series: told for series, of_seed in recorded.series.items() if (told := {
            seed: repeated for seed, repeated in of_seed.items()
            if any(rank_by in values for values in repeated.values())})},
        pairs=compare_neighbours(read_index(needed(paths.CASES, "evaluate")), order, rank_by,
                                 load_section("evaluate", EvaluateParams), load_value("seed", int)))


def shown(metrics: dict[str, dict[str, float]], rank_by: str) -> dict[str, dict[str, float]]:
    """The metrics that tables show, by method."""
    from flipside.report.tables import TABLE, TERMINAL

    return {method: {name: values[name] for name in sorted({rank_by, *TABLE, *TERMINAL} & values.keys())}
            for method, values in metrics.items()}

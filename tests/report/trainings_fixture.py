"""Repetitions of made-up runs."""

import json
from pathlib import Path

from flipside.report.trainings import Pair, Trainings, fingerprint


def pair(first, second, difference, low, high, p_holm=0.01):
    return Pair(first=first, second=second, difference=difference, low=low, high=high, p_holm=p_holm)


def repeated(metrics, rank_by, shifts, parameters, data="", pairs=()):
    """A run and its repetitions; `shifts`: {series: {seed: {method: what is added to every metric but times}}}."""
    run = {method: {name: value for name, value in values.items() if not name.startswith("n_")}
           for method, values in metrics.items()}
    series = {name: {seed: shifted(run, shift) for seed, shift in of_seed.items()} for name, of_seed in shifts.items()}
    return Trainings(parameters=fingerprint(parameters), data=data, ranked_by=rank_by, run=run, pairs=list(pairs),
                     series=series)


def shifted(run, shift):
    return {method: {name: value if name == "seconds_per_image" else value + shift.get(method, 0)
                     for name, value in values.items()} for method, values in run.items()}


def write(trainings, file="reports/trainings.json"):
    Path(file).write_text(json.dumps(trainings.model_dump(mode="json")))

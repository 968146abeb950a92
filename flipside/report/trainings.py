"""reports/trainings.json: the run's metrics beside those of the same run trained again under other seeds.

`flipside repeat` writes it; without a repetition it is EMPTY. A repetition counts only beside the run that it repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from flipside.core.files import content_digest, read_json
from flipside.core.params import Params

TRAININGS = Path("reports/trainings.json")
Series = Literal["generators", "classifier"]
SERIES: dict[Series, str] = {
    "generators": "generators and encoders trained again, the classifier stays",
    "classifier": "the classifier trained again too, and all that rests on it",
}
# Sections that change no metric of a method: where it is computed, what is shown, what is written for a viewer.
WITHOUT_EFFECT = ("profile", "probe", "report", "runtime", "segment_scans")
TIMES = ("seconds_per_image", "seconds_training")  # differ whenever something is run again


class Pair(Params):
    """Two neighbours in the run's ranking on the same test slices."""

    first: str
    """The method that ranks higher."""
    second: str
    """The next one."""
    difference: float
    """Mean difference of the ranking metric, first minus second."""
    low: float
    """Lower bound of its interval over patients."""
    high: float
    """Upper bound."""
    p_holm: float
    """Wilcoxon's paired test on the patients' mean differences, Holm's correction over all pairs."""


@dataclass(frozen=True)
class Spread:
    """One metric of one method over several trainings, the run's own among them."""

    mean: float
    low: float
    high: float


class Trainings(Params):
    """Content of reports/trainings.json."""

    parameters: str
    """Fingerprint of the parameters that the run was made with."""
    data: str
    """Fingerprint of the slices."""
    ranked_by: str
    """The metric in which neighbours are compared."""
    run: dict[str, dict[str, float]]
    """The run's own metrics by method: those that the report's tables show."""
    series: dict[Series, dict[int, dict[str, dict[str, float]]]]
    """The same of each repetition, by what was trained again and what was added to each `seed_offset`."""
    pairs: list[Pair]
    """Neighbours in the ranking, best first; none where test slices have no such number of their own."""

    def adding(self, series: Series, seed: int, metrics: dict[str, dict[str, float]]) -> Trainings:
        """These and one repetition more."""
        known = self.series.get(series, {})
        return self.model_copy(update={"series": self.series | {series: known | {seed: metrics}}})

    def count(self, series: Series) -> int:
        """Number of trainings, the run's own included; 0 where nothing was repeated."""
        repeated = len(self.series.get(series, {}))
        return repeated + 1 if repeated else 0

    def spread(self, series: Series, method: str, metric: str) -> Spread | None:
        """Mean, least and greatest value over the trainings; None where no training reaches this method."""
        if not self._reaches(series, method):
            return None
        values = [metrics[method][metric] for metrics in self._all(series) if metric in metrics.get(method, {})]
        if len(values) < 2:
            return None
        return Spread(sum(values) / len(values), min(values), max(values))

    def are_apart(self, first: str, second: str) -> bool | None:
        """Whether the ranges of two methods in the ranking metric are apart, in every series that reaches one of them.

        None where no series does: nothing is known then.
        """
        told = []
        for series in self.series:
            if not (self._reaches(series, first) or self._reaches(series, second)):
                continue
            ours, others = ([metrics.get(method, {}).get(self.ranked_by) for metrics in self._all(series)]
                            for method in (first, second))
            one, other = ([value for value in values if value is not None] for values in (ours, others))
            told.append(bool(one and other) and do_not_overlap((min(one), max(one)), (min(other), max(other))))
        return all(told) if told else None

    def misfit(self, parameters: dict[str, Any], metrics: dict[str, dict[str, float]], rank_by: str,
               data: str | None = None) -> str | None:
        """Why these are no repetitions of a run; None where they are.

        `parameters`: all sections; `data`: the fingerprint of its slices, None where nobody has them.
        """
        if self.parameters != fingerprint(parameters):
            return "it was made with other parameters"
        if data is not None and self.data != data:
            return "it was made on other slices"
        if self.ranked_by != rank_by:
            return f"it compares methods by {self.ranked_by}, and {rank_by} ranks them now"
        now = {method: {name: metrics[method].get(name) for name in values}
               for method, values in self.run.items() if method in metrics}
        if steady(self.run) != steady(now):
            return "the run that it repeats had other metrics"
        return None

    def _all(self, series: Series) -> list[dict[str, dict[str, float]]]:
        return [self.run, *self.series.get(series, {}).values()]

    def _reaches(self, series: Series, method: str) -> bool:
        """Whether a repetition changed any number of a method that is no time."""
        first, *others = (steady({method: metrics.get(method, {})}) for metrics in self._all(series))
        return any(other != first for other in others)


EMPTY = Trainings(parameters="", data="", ranked_by="", run={}, series={}, pairs=[])


def do_not_overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two intervals (low, high) have no number in common."""
    return first[0] > second[1] or second[0] > first[1]


def read_trainings(path: Path = TRAININGS) -> Trainings:
    """The file; EMPTY where there is none, as where trained models are applied to another data set.

    Raises ValueError where its content is not what `flipside repeat` writes.
    """
    if not path.is_file():
        return EMPTY
    try:
        return Trainings.model_validate(read_json(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: `{'.'.join(map(str, first['loc']))}`: {first['msg']}; take the file from git again "
                         "(`git checkout`) or let `flipside repeat` write it anew") from None


def counting(recorded: Trainings, parameters: dict[str, Any], metrics: dict[str, dict[str, float]], rank_by: str,
             data: str | None = None) -> tuple[Trainings, str]:
    """The repetitions if they are of this run, else EMPTY and the sentence that says why they are ignored."""
    if not recorded.series:
        return EMPTY, ""
    reason = recorded.misfit(parameters, metrics, rank_by, data)
    if reason is None:
        return recorded, ""
    return EMPTY, f"{TRAININGS.name} is ignored: {reason}. `flipside repeat` trains again."


def steady(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Metrics without times."""
    return {method: {name: value for name, value in values.items() if name not in TIMES}
            for method, values in metrics.items()}


def fingerprint(parameters: dict[str, Any]) -> str:
    """Of all sections that change a metric; of `datasets` only the block in use counts."""
    relevant = {name: value for name, value in parameters.items() if name not in (*WITHOUT_EFFECT, "datasets")}
    return content_digest(_as_numbers(relevant | {"datasets": parameters["datasets"].get(parameters["dataset"])}))


def _as_numbers(value: Any) -> Any:
    """A value with its numbers as floats: DVC writes 5e-05, which YAML takes for text."""
    if isinstance(value, dict):
        return {str(key): _as_numbers(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_numbers(inner) for inner in value]
    if isinstance(value, bool) or value is None:
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value

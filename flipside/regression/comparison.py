"""Two revisions' metrics side by side: what got better or worse than its tolerance, as a Markdown table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml

from flipside.core.params import Params
from flipside.metrics.classifier_quality import CLASSIFIER_METRICS
from flipside.metrics.registry import METRICS, count, default_tolerances, higher_is_better
from flipside.report.tables import MISSING, TABLE

METRICS_FILE = "reports/metrics.json"
MODEL_FILES = {role: f"reports/{role}.json" for role in ("classifier", "judge")}
TOLERANCES_FILE = Path("tolerances.yaml")
ROUNDING = 1e-9  # a difference of exactly the tolerance is within it
EVERYTHING = "all metrics"
FAILS = ("gone", "worse")
ORDER = ("gone", "worse", "better", "new", "within tolerance", "not gated")

Values = dict[str, dict[str, float]]  # method, or file of a classifier -> metric -> value
Tolerance = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


class Tolerances(Params):
    """By how much each metric may get worse, in its own units; None: it is shown, never judged."""

    methods: dict[str, Tolerance | None]
    """Metrics of reports/metrics.json, the same for every method."""
    classifier: dict[str, Tolerance | None]
    """Metrics of reports/classifier.json."""
    judge: dict[str, Tolerance | None]
    """Metrics of reports/judge.json."""

    def of(self, group: str) -> dict[str, float | None]:
        """The tolerances of a method, or of a classifier's file."""
        roles = {file: role for role, file in MODEL_FILES.items()}
        return getattr(self, roles.get(group, "methods"))


@dataclass(frozen=True)
class Row:
    """One number at both revisions; None where it isn't there. Without a tolerance it is never judged."""

    group: str
    metric: str
    before: float | None
    now: float | None
    tolerance: float | None
    verdict: str
    """One of ORDER."""
    counts: tuple[int | None, int | None]
    """Cases that the number rests on, before and now."""

    @property
    def difference(self) -> float | None:
        return None if self.before is None or self.now is None else self.now - self.before

    @property
    def is_listed(self) -> bool:
        """Gated numbers always; of the others those of the ranked table, where they changed."""
        return self.verdict != "not gated" or self.metric in TABLE and self.before != self.now


def read_tolerances(path: Path = TOLERANCES_FILE) -> Tolerances:
    """The metrics' default tolerances with what tolerances.yaml changes; a ValueError names the key that is wrong."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: it says which tolerances differ from the metrics' defaults")
    try:
        changed = Tolerances.model_validate(yaml.safe_load(path.read_text()))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: `{'.'.join(map(str, first['loc']))}`: {first['msg']}") from None
    of_classifiers = default_tolerances(CLASSIFIER_METRICS)
    return Tolerances(methods={**default_tolerances(METRICS), **changed.methods},
                      classifier={**of_classifiers, **changed.classifier}, judge={**of_classifiers, **changed.judge})


def read_values(read: Callable[[str], str], where: str) -> Values:
    """All metric files of one revision through `read(path) -> text`. Anything but finite numbers is refused by name."""
    values = {method: _numbers(metrics, f"{METRICS_FILE} ({where}): {method}")
              for method, metrics in _mapping(read(METRICS_FILE), f"{METRICS_FILE} ({where})").items()}
    for file in MODEL_FILES.values():
        values[file] = _numbers(_mapping(read(file), f"{file} ({where})"), f"{file} ({where})")
    return values


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{what}: expected a mapping, found {type(content).__name__}")
    return content


def _numbers(content: Any, what: str) -> dict[str, float]:
    if not isinstance(content, dict):
        raise ValueError(f"{what}: expected metrics, found {content!r}")
    for name, value in content.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{what}: `{name}` is {value!r}, expected a finite number: run `dvc repro` and commit the "
                             "metrics")
    return content


def compare(before: Values, now: Values, tolerances: Tolerances, controls: list[str]) -> list[Row]:
    """Rows of all numbers on either side, failures first; a method that vanished is one row, a control's too.

    Raises ValueError for a tolerance whose metric doesn't exist: a typing error would switch the gate off.
    """
    groups = list(dict.fromkeys([*before, *now]))
    _check_names(tolerances, groups, before, now)
    rows = []
    for group in groups:
        old, new = before.get(group, {}), now.get(group, {})
        if group not in now:
            rows.append(Row(group, EVERYTHING, None, None, None, "gone", (None, None)))
            continue
        gates = {} if group in controls else tolerances.of(group)
        for metric in dict.fromkeys([*old, *new]):
            values, tolerance = (old.get(metric), new.get(metric)), gates.get(metric)
            rows.append(Row(group, metric, *values, tolerance, _verdict(metric, *values, tolerance),
                            (_n(old, metric), _n(new, metric))))
    places = {metric: place for place, metric in enumerate(METRICS)}
    return sorted(rows, key=lambda row: (ORDER.index(row.verdict), groups.index(row.group),
                                         places.get(row.metric, len(places)), row.metric))


def _verdict(metric: str, before: float | None, now: float | None, tolerance: float | None) -> str:
    if tolerance is None:
        return "not gated"
    if before is None or now is None:
        return "new" if before is None else "gone"
    gain = now - before if higher_is_better(metric) else before - now
    if abs(gain) <= tolerance + ROUNDING:
        return "within tolerance"
    return "better" if gain > 0 else "worse"


def _check_names(tolerances: Tolerances, groups: list[str], before: Values, now: Values) -> None:
    for section in Tolerances.model_fields:
        own = [group for group in groups if tolerances.of(group) is getattr(tolerances, section)]
        known = {metric for group in own for metric in {**before.get(group, {}), **now.get(group, {})}}
        for name in getattr(tolerances, section):
            if name not in known and name not in (METRICS if section == "methods" else CLASSIFIER_METRICS):
                raise ValueError(f"{TOLERANCES_FILE}: `{section}.{name}` is no metric; there are: "
                                 f"{', '.join(sorted(known))}")


def _n(values: dict[str, float], metric: str) -> int | None:
    n = values.get("n", count(values, metric)) if metric in values else None
    return None if n is None else int(n)


def failures(rows: list[Row]) -> list[str]:
    """What fails the gate, one phrase each."""
    phrases = []
    for row in rows:
        if row.verdict == "gone":
            phrases.append(f"{row.group} has lost {row.metric}")
        elif row.verdict == "worse":
            assert row.difference is not None  # the verdict compares two numbers
            phrases.append(f"{row.group} {row.metric} is worse by {abs(row.difference):.4g} "
                           f"(tolerance {row.tolerance:g})")
    return phrases


def markdown_table(rows: list[Row], rev: str) -> str:
    """The rows that matter as a table, and how many numbers it leaves out."""
    hidden = [row for row in rows if not row.is_listed]
    changed = sum(row.before != row.now for row in hidden)
    lines = [_line(["method", "metric", rev, "now", "difference", "tolerance", "verdict", "n"]),
             _line(["---", "---", *["---:"] * 4, "---", "---:"])]
    for row in filter(lambda row: row.is_listed, rows):
        arrow = "" if row.metric == EVERYTHING else " ↑" if higher_is_better(row.metric) else " ↓"
        lines.append(_line([
            row.group, row.metric + arrow, _number(row.before), _number(row.now), _number(row.difference, "+"),
            MISSING if row.tolerance is None else f"{row.tolerance:g}",
            f"**{row.verdict}**" if row.verdict in FAILS else row.verdict, _counts(*row.counts),
        ]))
    return "\n".join([*lines, "", f"↑ more is better, ↓ less is better; n: cases that the number rests on. Not listed: "
                      f"{len(hidden)} numbers without a tolerance, of which {changed} changed "
                      f"(`dvc metrics diff {rev}`)."])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return MISSING
    return f"{value:{sign}d}" if isinstance(value, int) else f"{value:{sign}.4f}"


def _counts(before: int | None, now: int | None) -> str:
    shown = [MISSING if n is None else str(n) for n in (before, now)]
    return shown[1] if before in (None, now) else " → ".join(shown)

"""Which differences between neighbours in the ranking would stand with other patients and with other trainings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from flipside.metrics.registry import label
from flipside.report.tables import MISSING, Metrics, interval, number, ranking, spread_text
from flipside.report.trainings import SERIES, Pair, Series, Trainings, do_not_overlap

HEADINGS: dict[Series, str] = {"generators": "generators", "classifier": "classifiers, with all that rests on them"}
RULE = ("A difference to the next method stands where both patients and trainings bear it out. Patients: the interval "
        "of the paired difference leaves out 0, and Wilcoxon's test over patients agrees after Holm's correction over "
        "all neighbours; without numbers by slice, the two intervals don't overlap. Trainings: the two ranges don't "
        "overlap, in each series. For two equal methods with three trainings each, that happens by chance in 1 of 10 "
        "cases.")


@dataclass(frozen=True)
class Neighbours:
    """A method and the one that comes next, in the ranking metric."""

    first: str
    second: str
    difference: str
    """Paired, with its interval over patients; empty where slices have no such number."""
    over_patients: bool | None
    """Whether the difference stands with other patients; None without intervals."""
    over_trainings: bool | None
    """Whether it stands with other trainings; None where neither method was trained again."""

    @property
    def stands(self) -> bool:
        """With both."""
        return bool(self.over_patients and self.over_trainings)

    @property
    def verdict(self) -> str:
        """In a table's cell."""
        if self.stands:
            return "yes"
        if self.over_patients is None:
            return "not known"
        if self.over_trainings is None:
            return "over patients; nothing was trained again" if self.over_patients else "no"
        return "over patients only" if self.over_patients else "over trainings only" if self.over_trainings else "no"


@dataclass(frozen=True)
class SureRow:
    """One method: the ranking metric with its intervals, and how sure its place before the next one is."""

    name: str
    value: str
    bounds: str
    spreads: list[str]
    """Over the trainings of each series, in the order of `trained_series`."""
    next: Neighbours | None


def judge_neighbours(metrics: Metrics, rank_by: str, trainings: Trainings, confidence: float) -> list[Neighbours]:
    """All neighbours in the ranking, best first; methods without the metric are left out."""
    pairs = {(pair.first, pair.second): pair for pair in trainings.pairs}
    order = [method for method in ranking(metrics, rank_by) if rank_by in metrics[method]]
    found = []
    for first, second in pairwise(order):
        pair = pairs.get((first, second))
        found.append(Neighbours(first, second, describe_pair(pair) if pair else "",
                                is_apart(pair, confidence) if pair else are_apart(metrics, first, second, rank_by),
                                trainings.are_apart(first, second)))
    return found


def is_apart(pair: Pair, confidence: float) -> bool:
    """Whether a paired difference stands with other patients."""
    return not pair.low <= 0 <= pair.high and pair.p_holm < 1 - confidence


def are_apart(metrics: Metrics, first: str, second: str, rank_by: str) -> bool | None:
    """Whether two intervals don't overlap; None where one is missing."""
    ours, others = interval(metrics[first], rank_by), interval(metrics[second], rank_by)
    return None if ours is None or others is None else do_not_overlap(ours, others)


def describe_pair(pair: Pair) -> str:
    """The difference with its interval and its p."""
    return f"{pair.difference:+.3f} ({pair.low:+.3f} to {pair.high:+.3f}), p {number(pair.p_holm)}"


def sentences(metrics: Metrics, rank_by: str, controls: list[str], trainings: Trainings,
              confidence: float) -> list[str]:
    """The best method over its trainings, and which differences stand; nothing without repetitions."""
    if not trainings.series:
        return []
    told = []
    best = next((method for method in ranking(metrics, rank_by) if method not in controls), None)
    for series in trained_series(trainings):
        spread = trainings.spread(series, best, rank_by) if best else None
        if spread:
            told.append(f"{trainings.count(series)} trainings ({SERIES[series]}): {label(rank_by)} of {best} is "
                        f"{number(spread.low)} to {number(spread.high)}, mean {number(spread.mean)}.")
    found = judge_neighbours(metrics, rank_by, trainings, confidence)
    standing = [f"{pair.first} before {pair.second}" for pair in found if pair.stands]
    return [*told, f"Of {len(found)} differences between neighbours in the ranking {len(standing) or 'none'} "
            f"stand{'s' if len(standing) < 2 else ''} with other patients and other trainings"
            f"{': ' + ', '.join(standing) if standing else ''}."]


def sure_rows(metrics: Metrics, rank_by: str, trainings: Trainings, confidence: float) -> list[SureRow]:
    """All methods with the ranking metric, best first."""
    after = {pair.first: pair for pair in judge_neighbours(metrics, rank_by, trainings, confidence)}
    rows = []
    for method in ranking(metrics, rank_by):
        if rank_by not in metrics[method]:
            continue
        bounds = interval(metrics[method], rank_by)
        rows.append(SureRow(method, number(metrics[method][rank_by]),
                            f"{number(bounds[0])} to {number(bounds[1])}" if bounds else MISSING,
                            [spread_text(trainings, series, method, rank_by) or MISSING
                             for series in trained_series(trainings)],
                            after.get(method)))
    return rows


def trained_series(trainings: Trainings) -> list[Series]:
    """The series that there are, generators first."""
    return [series for series in SERIES if trainings.count(series)]


def series_headings(trainings: Trainings) -> list[str]:
    """Of the columns with the series' spreads."""
    return [f"{trainings.count(series)} {HEADINGS[series]}" for series in trained_series(trainings)]


def sureness_table(metrics: Metrics, rank_by: str, trainings: Trainings, confidence: float) -> str:
    """The rows as a Markdown table, with the rule below; empty without repetitions."""
    if not trainings.series:
        return ""
    header = ["method", label(rank_by), "over patients", *series_headings(trainings), "difference to the next",
              "does it stand?"]
    lines = [header, ["---", *["---:"] * (len(header) - 2), "---"]]
    for row in sure_rows(metrics, rank_by, trainings, confidence):
        told = (row.next.difference or MISSING, row.next.verdict) if row.next else (MISSING, MISSING)
        lines.append([row.name, row.value, row.bounds, *row.spreads, *told])
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "",
                      "Over trainings: the mean, and the least and the greatest value; "
                      f"{MISSING}: nothing of the method was trained again. {RULE}", ""])

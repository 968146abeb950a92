"""What one metric is, and what a family of metrics declares and computes: one file per family in `families/`.

A family's file is all that a new metric needs: the columns of reports/cases.csv, reports/metrics.json, the tables, the
report, the default tolerances of `make compare` and the metric reference of the docs follow from the class in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import pandas as pd

from flipside.core.progress import Ticker
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.method_artifacts import MethodArtifacts

Need = Literal["lesions", "counterfactual", "abnormal"]
Table = Literal["ranking", "terminal", "distances"]


@dataclass(frozen=True)
class Metric:
    """How one metric is called, read, sorted, counted and judged. What is left out holds for the whole family."""

    label: str
    """Short name, for the head of a column."""
    meaning: str
    """What it measures, in a plain sentence without its full stop."""
    higher_is_better: bool
    n: str = ""
    """The count in metrics.json that says how many test slices (lesions, patients) the number rests on."""
    interval: bool = False
    """Whether `<name>_ci_low` and `<name>_ci_high` stand beside it, where there are enough cases."""
    tolerance: float | None = None
    """By how much it may get worse before `make compare` fails; None: it is shown, never judged."""
    tables: tuple[Table, ...] = ()
    """The ranked table, the terminal's shorter one, and that of distances between scans and counterfactuals."""
    absent: str = ""
    """Why a method may lack it."""
    bought: bool = False
    """Whether destroying the image raises it: in a ranking by it, methods that flip by destruction come last."""
    theme: str = ""
    """Its heading in the report and in the docs; the registry fills in the family's."""
    needs_counterfactual: bool = False
    """Whether it takes a counterfactual image; the registry fills in what the family says."""


class Family:
    """Metrics that are measured together.

    First every family measures, in the order of `place`, some slices at a time; then every family describes and
    summarises. All that only where the data set and the method have what the family needs.
    """

    place: ClassVar[int]
    """Where the family stands among the others: in cases.csv, in tables and in the report."""
    theme: ClassVar[str]
    """Heading of its metrics in the report and in the docs; families may share one."""
    metrics: ClassVar[Mapping[str, Metric]]
    """{name in metrics.json: metric}, in the order in which tables show them."""
    counts: ClassVar[Mapping[str, str]] = {}
    """{name in metrics.json, which begins with n_: what it counts}."""
    columns: ClassVar[tuple[str, ...]] = ()
    """The columns of cases.csv that `measure` fills; empty (NaN) where it does not."""
    needs: ClassVar[tuple[Need, ...]] = ()
    """Lesion masks of the data set, and images that the method makes."""
    n: ClassVar[str] = "n_cases"
    """`Metric.n` of those metrics that name none."""
    absent: ClassVar[str] = ""
    """`Metric.absent` of those metrics that name none."""

    def applies_to(self, artifacts: MethodArtifacts) -> bool:
        """Whether data set and method have all that the family needs."""
        have = {"lesions": artifacts.test.annotated, "counterfactual": artifacts.makes_counterfactuals,
                "abnormal": artifacts.makes_abnormal}
        return all(have[need] for need in self.needs)

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        """Fill the family's columns of one method's `cases`, rows of cases.csv, in place: of whole scans, and of as
        many as fit into memory."""

    def describe(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> dict[str, float]:
        """The metrics of a method, with all its rows, that don't follow from the columns, such as its time. It reads no
        arrays."""
        return {}

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        """The metrics that follow from one method's rows of cases.csv; absent where they rest on no case."""
        return {}

    def compare(self, tables: dict[str, pd.DataFrame], params: EvaluateParams,
                seed: int) -> dict[str, dict[str, float]]:
        """{method: the metrics that take all methods' rows of cases.csv}; `tables`: {method: its rows}."""
        return {}

    def reasons(self, method: str) -> dict[str, str]:
        """{metric: why it was not measured for this method}, where an earlier stage wrote a reason down."""
        return {}


def measure_methods(methods: Mapping[str, MethodArtifacts], families: Sequence[Family], params: EvaluateParams,
                    seed: int) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, float]]]:
    """Each method's rows of cases.csv and its metrics, of all families that apply to it; what compares methods lacks.

    Slices are measured part by part, each of them for all methods while it is in memory.
    """
    applied = {method: [family for family in families if family.applies_to(artifacts)]
               for method, artifacts in methods.items()}
    columns = [column for family in families for column in family.columns]
    test = next(iter(methods.values())).test
    parts = test.parts()
    pieces: dict[str, list[pd.DataFrame]] = {method: [] for method in methods}
    ticker, done = Ticker("evaluate", len(parts) * len(methods)), 0
    for places in parts:
        part = test.part(places)  # its arrays are forgotten with it
        for method, whole in methods.items():
            artifacts = whole.of_part(part)
            cases = artifacts.cases(columns)
            for family in applied[method]:
                family.measure(artifacts, cases)
            pieces[method].append(cases.set_index(places))
            ticker.tick(done := done + 1)
    tables = {method: pd.concat(of_method).sort_index() for method, of_method in pieces.items()}
    metrics: dict[str, dict[str, float]] = {}
    for method, cases in tables.items():
        metrics[method] = {}
        for family in applied[method]:
            metrics[method] |= family.describe(methods[method], cases)
        for family in applied[method]:
            metrics[method] |= family.summarise(cases, params, seed)
    return tables, metrics

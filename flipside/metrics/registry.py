"""All metrics: what every family in `families/` declares, in the order of the families' places."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping

from flipside.metrics import families
from flipside.metrics.classifier_quality import CLASSIFIER_METRICS
from flipside.metrics.family import Family, Metric, Table

BOUNDS = ("_ci_low", "_ci_high")
COUNTS_THEME, OTHER_THEME = "Counts", "Other"


def find_families() -> tuple[Family, ...]:
    """An instance of every Family that a file of `families/` defines, by place, then by the file's name.

    Raises ValueError where two families declare a metric, a count or a column of the same name.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    modules = [importlib.import_module(f"{families.__name__}.{name}") for name in names]
    found = [member() for module in modules for member in vars(module).values()
             if isinstance(member, type) and issubclass(member, Family) and member.__module__ == module.__name__]
    found.sort(key=lambda family: family.place)  # stable: families of one place stay in the order of their files
    owners: dict[str, str] = {}
    for family in found:
        for kind, declared in (("metric", [*family.metrics, *family.counts]), ("column", family.columns)):
            for name in declared:
                first = owners.setdefault(f"{kind} {name}", type(family).__name__)
                if first != type(family).__name__:
                    raise ValueError(f"{kind} {name} is declared by {first} and by {type(family).__name__}: "
                                     "give one of them another name")
    return tuple(found)


FAMILIES = find_families()
COLUMNS = tuple(column for family in FAMILIES for column in family.columns)  # of cases.csv, after CASE_COLUMNS
METRICS: dict[str, Metric] = {
    name: dataclasses.replace(metric, theme=family.theme, n=metric.n or family.n, absent=metric.absent or family.absent,
                              needs_counterfactual="counterfactual" in family.needs)
    for family in FAMILIES for name, metric in family.metrics.items()}
COUNTS: dict[str, str] = {name: meaning for family in FAMILIES for name, meaning in family.counts.items()}


def themes() -> list[str]:
    """The headings of the report's and the docs' tables of all metrics, in their order."""
    return list(dict.fromkeys([*(family.theme for family in FAMILIES if family.metrics), COUNTS_THEME, OTHER_THEME]))


def theme_of(name: str) -> str:
    """The heading under which a name of metrics.json stands; a bound of an interval stands with its metric."""
    metric = METRICS.get(base_name(name))
    if metric:
        return metric.theme
    return COUNTS_THEME if name.startswith("n_") else OTHER_THEME


def base_name(name: str) -> str:
    """The metric that a bound of an interval belongs to; any other name as it is."""
    for bound in BOUNDS:
        name = name.removesuffix(bound)
    return name


def metrics_in(table: Table) -> list[str]:
    """The metrics that a table shows, in its order."""
    return [name for name, metric in METRICS.items() if table in metric.tables]


def default_tolerances(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """{metric: by how much it may get worse before `make compare` fails}, of those that are judged."""
    return {name: metric.tolerance for name, metric in metrics.items() if metric.tolerance is not None}


def label(name: str) -> str:
    """A metric's short name for a column; the name in words where no family declares it."""
    return METRICS[name].label if name in METRICS else name.replace("_", " ")


def meaning(name: str) -> str:
    """What a metric or a count measures, in a few words; its name where no family declares it."""
    return METRICS[name].meaning if name in METRICS else COUNTS.get(name, name)


def higher_is_better(name: str) -> bool:
    """The direction of a metric of a method or of a classifier; True for counts and names that nothing declares."""
    known = METRICS.get(base_name(name)) or CLASSIFIER_METRICS.get(name)
    return known.higher_is_better if known else True


def count(values: dict[str, float], name: str) -> int | None:
    """On how many test slices (lesions, patients) a metric of one method rests, if the evaluation says so."""
    n = values.get(METRICS[name].n) if name in METRICS else values.get(f"n_{name}", values.get("n_cases"))
    return None if n is None else int(n)


def recorded_reasons(method: str) -> dict[str, str]:
    """{metric: why it was not measured for this method}, as the stages that measure metrics wrote it down."""
    return {name: reason for family in FAMILIES for name, reason in family.reasons(method).items()}


def why_missing(name: str, has_counterfactual: bool, reasons: dict[str, str]) -> str:
    """Why a method has no such number, for the reader who wonders; `reasons`: as
    `recorded_reasons` gives them."""
    known = METRICS.get(name)
    if known and known.needs_counterfactual and not has_counterfactual:
        return "needs a counterfactual image; this method gives an attribution map only"
    if name in reasons:
        return f"not measured: {reasons[name]}"
    return known.absent if known and known.absent else "not computed for this method in reports/metrics.json"

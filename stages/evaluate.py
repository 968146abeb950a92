"""Stage: all methods' masks and counterfactuals on the same test cases -> metrics.json, cases.csv and other tables."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from flipside.core import paths
from flipside.core.files import atomic_file, atomic_folder, write_metrics
from flipside.core.params import ParamsError, announce, load_section, load_value, read_params, stage_main, value_at
from flipside.masks.volumes import VolumeParams
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.bounded_flips import flips_by_bound
from flipside.metrics.family import measure_methods
from flipside.metrics.method_artifacts import MethodArtifacts, TestSplit, check_same_cases
from flipside.metrics.populations import population_table
from flipside.metrics.registry import FAMILIES, METRICS, recorded_reasons
from flipside.metrics.subgroups import subgroups

# A method's table, the table of all methods, and the columns that are taken of it.
CURVES = (("sweep.csv", "thresholds.csv", {"threshold": "threshold", "iou_test": "iou", "iou_test_raw": "iou_raw"}),
          ("shares.csv", "shares.csv", {"share": "share", "iou_test": "iou"}))


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, slices, truth.
    params = load_section("evaluate", EvaluateParams)
    volumes = load_section("segment_scans.volumes", VolumeParams)
    seed = load_value("seed", int)
    needs = {name: block["needs"] for name, block in value_at(read_params(), "methods").items()}
    needs |= {name: paths.foreign(name) for name in value_at(read_params(), "foreign_maps")}
    methods = list(needs)
    for key in ("reference_method", "upper_bound"):
        if (chosen := getattr(params, key)) is not None and chosen not in methods:
            raise ParamsError(f"params.yaml: `evaluate.{key}` is {chosen!r}, which has no block under `methods` or "
                              f"`foreign_maps`; there are: {', '.join(methods)}")
    strongly_supervised = bool(value_at(read_params(), "strong_supervision"))
    announce("evaluate", seed=seed, methods=methods, strongly_supervised=strongly_supervised, evaluate=params,
             volumes=volumes)
    test = TestSplit.open()

    # Each method on the same cases, then all against the reference.
    def open_method(method: str, reference: MethodArtifacts | None = None) -> MethodArtifacts:
        return MethodArtifacts(method, test, needs[method], reference, strongly_supervised, volumes)

    reference = open_method(params.reference_method)
    opened = {method: reference if method == params.reference_method else open_method(method, reference)
              for method in methods}
    tables, metrics = measure_methods(opened, FAMILIES, params, seed)
    check_same_cases(tables, params.reference_method)
    for family in FAMILIES:
        if test.annotated or "lesions" not in family.needs:
            for method, compared in family.compare(tables, params, seed).items():
                metrics[method] |= compared
    metrics = {method: {name: value if isinstance(value, int) else float(value) for name, value in values.items()}
               for method, values in metrics.items()}

    # Outputs.
    write_metrics("reports/metrics.json", metrics)
    with atomic_file("reports/cases.csv") as file:
        pd.concat(tables.values()).to_csv(file, index=False, float_format="%.6g")
    with atomic_file("reports/subgroups.csv") as file:
        subgroups(tables if test.annotated else {}, params, seed).to_csv(file, index=False, float_format="%.6g")
    with atomic_file("reports/populations.csv") as file:
        population_table(tables, test.annotated, params.cv_tau).to_csv(file, index=False)
    with atomic_file("reports/flips_by_bound.csv") as file:
        flips_by_bound(tables).to_csv(file, index=False, float_format="%.6g")
    with atomic_folder("reports/curves") as folder:
        for own, table, names in CURVES:
            curves(methods if test.annotated else [], own, names).to_csv(folder / table, index=False)
    print("\n".join(notes(metrics, test)))


def curves(methods: list[str], table: str, names: dict[str, str]) -> pd.DataFrame:
    """Mean IoU of the test split's lesion cases, for `dvc plots`, of all methods; names: the columns of data/masks'
    table that are taken, and what they are called."""
    tables = [pd.read_csv(Path("data/masks") / method / table)[list(names)].assign(method=method) for method in methods]
    whole = pd.concat(tables) if tables else pd.DataFrame(columns=["method", *names])
    return whole[["method", *names]].rename(columns=names)


def notes(metrics: dict[str, dict[str, float]], test: TestSplit) -> list[str]:
    """What a reader of the numbers should know: on how many cases they rest, and what has no number and why."""
    first = next(iter(metrics.values()))
    if not test.annotated:
        lines = [f"{len(test.rows)} test cases; data/truth holds no lesion, so there are no segmentation metrics"]
    else:
        lines = [f"{first['n_cases']} lesion cases of {first['n_patients']} patients, "
                 f"{first['n_healthy']} healthy cases"]
        if first["n_lesion_vanished"]:
            lines.append(f"left out: {first['n_lesion_vanished']} slices labelled abnormal whose lesion vanished in "
                         "the resize")
        if first["n_healthy"] == 0:
            lines.append("no fp_area_healthy: the test split has no healthy slice")
        if first["n_patients"] < 2:
            lines.append("no bootstrap intervals: all lesion cases are of one patient")
    for method, values in metrics.items():
        lines += [f"{method}: no {name}, no test case qualifies for it" for name, metric in METRICS.items()
                  if metric.n == f"n_{name}" and values.get(metric.n) == 0]
    lacking: dict[str, tuple[dict[str, None], dict[str, None]]] = {}  # reason -> methods and metrics
    for method, values in metrics.items():
        for name, reason in recorded_reasons(method).items():
            if name not in values:
                for found, one in zip(lacking.setdefault(reason, ({}, {})), (method, name), strict=True):
                    found[one] = None
    return lines + [f"{', '.join(who)}: no {', '.join(names)}; {reason}" for reason, (who, names) in lacking.items()]


if __name__ == "__main__":
    stage_main(main)

"""Stage: all methods' masks and counterfactuals on the same test cases -> metrics.json, cases.csv and other tables."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from flipside.core.files import atomic_file, atomic_folder, read_json, write_metrics
from flipside.core.params import ParamsError, announce, load_section, load_value, read_params, stage_main, value_at
from flipside.core.progress import progress
from flipside.metrics.case_table import TestSplit, measure
from flipside.metrics.localisation import change_metrics, localisation_metrics
from flipside.metrics.paired_tests import check_same_cases, compare
from flipside.metrics.populations import population_table
from flipside.metrics.psnr import clean_metrics
from flipside.metrics.subgroups import subgroups
from flipside.metrics.summary import (
    EvaluateParams,
    abnormal_metrics,
    counterfactual_metrics,
    segmentation_metrics,
)
from flipside.metrics.training_records import inversion_metrics, randomisation_metrics, training_metrics

# Counts without which there is no number of the same name.
RATES = ("n_success_rate", "n_cv", "n_judge_flip_rate", "n_change", "n_added")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, slices, truth.
    params = load_section("evaluate", EvaluateParams)
    seed = load_value("seed", int)
    needs = {name: block["needs"] for name, block in value_at(read_params(), "methods").items()}
    methods = list(needs)
    if params.reference_method not in methods:
        raise ParamsError(f"params.yaml: `evaluate.reference_method` is {params.reference_method!r}, which has no "
                          f"block under `methods`; there are: {', '.join(methods)}")
    strongly_supervised = bool(value_at(read_params(), "strong_supervision"))
    announce("evaluate", seed=seed, methods=methods, strongly_supervised=strongly_supervised, evaluate=params)
    test = TestSplit.open()

    # Each method on the same cases, then all against the reference.
    metrics, tables = {}, {}
    for method in progress(methods, "evaluate"):
        cases, pooled, timing = measure(method, test, params.reference_method)
        metrics[method] = {"n_test": len(cases), "seconds_per_image": timing["seconds_per_image"]}
        if test.annotated:
            metrics[method] |= segmentation_metrics(cases, pooled, params, seed) | localisation_metrics(cases)
        if cases["f_x_cf"].notna().any():
            metrics[method] |= counterfactual_metrics(cases, params)
            metrics[method] |= read_json(f"data/realism/{method}.json")["metrics"]
            metrics[method] |= change_metrics(cases) | clean_metrics(cases) if test.annotated else {}
        if cases["f_x_ab"].notna().any():
            metrics[method] |= abnormal_metrics(cases, params)
        metrics[method] |= training_metrics(needs[method]) | inversion_metrics(needs[method])
        metrics[method] |= randomisation_metrics(method)
        if strongly_supervised:
            metrics[method]["strongly_supervised"] = 1
        tables[method] = cases
    check_same_cases(tables, params.reference_method)
    if test.annotated:
        for method, comparison in compare(tables, params, seed).items():
            metrics[method] |= comparison
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
    with atomic_folder("reports/curves") as folder:
        threshold_curves(methods if test.annotated else []).to_csv(folder / "thresholds.csv", index=False)
    print("\n".join(notes(metrics, test)))


def threshold_curves(methods: list[str]) -> pd.DataFrame:
    """Mean IoU of the test split's lesion cases against the threshold, cleaned (iou) and raw, for `dvc plots`."""
    curves = [pd.read_csv(Path("data/masks") / method / "sweep.csv").assign(method=method) for method in methods]
    names = {"method": "method", "threshold": "threshold", "iou_test": "iou", "iou_test_raw": "iou_raw"}
    if not curves:
        return pd.DataFrame(columns=list(names.values()))
    return pd.concat(curves)[list(names)].rename(columns=names)


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
        lines += [f"{method}: no {name[2:]}, no test case qualifies for it" for name, value in values.items()
                  if name.startswith(RATES) and value == 0]
        if "sanity_randomisation_passed" not in values:
            reason = read_json(f"data/sanity/{method}.json")["reason"]
            lines.append(f"{method}: no sanity_randomisation_passed, {reason}")
    return lines


if __name__ == "__main__":
    stage_main(main)

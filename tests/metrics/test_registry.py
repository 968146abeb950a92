"""What the registry promises: every metric is declared once, in one file, and all else follows from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flipside.methods.checks import realism
from flipside.metrics import registry
from flipside.metrics.registry import COUNTS, METRICS

ROOT = Path(__file__).parents[2]
FAMILY = '''
import pandas as pd

from flipside.metrics.family import Family, Metric


class Brightness(Family):
    place = 61
    theme = "How bright are the maps?"
    absent = "its maps are dark"
    metrics = {"map_brightness": Metric("brightness", "mean of the attribution map", False, "n_map_brightness",
                                        tolerance=0.125, tables=("ranking", "terminal", "distances"))}
    counts = {"n_map_brightness": "slices with a map"}
    columns = ("brightness",)

    def measure(self, artifacts, cases):
        cases["brightness"] = artifacts.explanations.attribution[artifacts.at].mean(axis=(1, 2), dtype=float)

    def summarise(self, cases, params, seed):
        return {"n_map_brightness": len(cases), "map_brightness": cases["brightness"].mean()}
'''
# What a project with one more file in families/ shows, in a process of its own.
SCRIPT = '''
import json, os, sys
from pathlib import Path

import numpy as np

from flipside.metrics import families

FOLDER, TOLERANCES = sys.argv[1:]
families.__path__.append(FOLDER)  # where the new file is

import yaml

from flipside.metrics import registry
from flipside.regression.comparison import read_tolerances
from flipside.report import tables
from stages import report
from tests.report.report_fixture import METHODS, build_project
from tests.stages.project_of_two import run, run_all, write_project

os.makedirs("two")
os.chdir("two")
write_project()
metrics = run_all()
os.chdir("..")
build_project(Path("page"), np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24)), METHODS, ("coin",), ("random",))
os.chdir("page")
file = Path("reports/metrics.json")
content = json.loads(file.read_text())
content["coin"]["map_brightness"] = 0.4375
file.write_text(json.dumps(content))
run(report)
print("FOUND " + json.dumps({
    "metrics": {method: values.get("map_brightness") for method, values in metrics.items()},
    "counts": {method: values.get("n_map_brightness") for method, values in metrics.items()},
    "columns": Path("../two/reports/cases.csv").read_text().splitlines()[0].split(","),
    "markdown": tables.markdown_table(metrics, "iou_val", [], ""),
    "terminal": tables.plain_table(metrics, "iou_val", []),
    "page": Path("reports/report.html").read_text(),
    "tolerance": read_tolerances(Path(TOLERANCES)).methods["map_brightness"],
    "themes": registry.themes(),
    "metric": [registry.label("map_brightness"), registry.meaning("map_brightness"),
               registry.theme_of("map_brightness")],
    "missing": registry.why_missing("map_brightness", False, {}), "count": registry.meaning("n_map_brightness"),
    "distances": registry.metrics_in("distances")}))
'''


def test_a_new_metric_is_one_file(tmp_path):
    folder = tmp_path / "more_families"
    folder.mkdir()
    (folder / "brightness.py").write_text(FAMILY)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(ROOT / "tolerances.yaml")], cwd=tmp_path, text=True,
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("FOUND "))[len("FOUND "):])
    assert found["counts"] == {"good": 32, "blind": 32}
    assert 0 < found["metrics"]["good"] < found["metrics"]["blind"] == pytest.approx(0.5, abs=0.01)
    columns = found["columns"]
    assert columns.index("cycle_l1") < columns.index("brightness") < columns.index("change_inside")  # by its place
    head, value = "brightness ↓", f"{found['metrics']['blind']:.3f}"
    assert head in found["markdown"] and value in found["markdown"]
    assert "brightness" in found["terminal"].splitlines()[0] and value in found["terminal"]
    for text in ("How bright are the maps?", "map_brightness", "mean of the attribution map; less is better", "0.438",
                 "its maps are dark"):
        assert text in found["page"], text
    assert found["tolerance"] == 0.125
    assert found["metric"] == ["brightness", "mean of the attribution map", "How bright are the maps?"]
    assert found["missing"] == "its maps are dark" and found["count"] == "slices with a map"
    assert "map_brightness" in found["distances"]
    themes = found["themes"]
    assert themes.index("How bright are the maps?") == themes.index("How much is changed, and where?") + 1


def test_two_families_with_a_metric_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "brightness.py").write_text(FAMILY.replace("map_brightness", "iou_val"))
    monkeypatch.setattr(registry.families, "__path__", [*registry.families.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "flipside.metrics.families.brightness", raising=False)
    with pytest.raises(ValueError, match="metric iou_val is declared by Overlap and by Brightness"):
        registry.find_families()
    sys.modules.pop("flipside.metrics.families.brightness")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_all_that_a_reader_needs(name):
    metric = METRICS[name]
    assert metric.label and metric.theme in registry.themes() and len(metric.meaning) > 20
    assert not metric.meaning.endswith(".") and not metric.absent.endswith(".")
    assert metric.n in (*COUNTS, ""), "the count that it rests on is declared by no family"
    assert set(metric.tables) <= {"ranking", "terminal", "distances"}


def test_counts_begin_with_n_and_are_explained():
    assert all(name.startswith("n_") and meaning for name, meaning in COUNTS.items())


def test_every_committed_number_is_declared_with_its_interval():
    committed = json.loads((ROOT / "reports/metrics.json").read_text())
    names = {name for values in committed.values() for name in values}
    assert {registry.base_name(name) for name in names} <= {*METRICS, *COUNTS}
    with_interval = {registry.base_name(name) for name in names if registry.base_name(name) != name}
    assert all(METRICS[name].interval for name in with_interval)
    assert {name for name in names & {*METRICS} if METRICS[name].interval} == with_interval


def test_the_distances_that_measure_realism_writes_are_declared():
    kernel = realism.KERNEL.values()
    written = {*realism.FRECHET.values(), *realism.INCEPTION_METRICS, *realism.BOTH_DIRECTIONS, *kernel,
               *(f"{name}_std" for name in kernel)}
    assert written <= {name for name, metric in METRICS.items() if metric.needs_counterfactual}


def test_directions_of_bounds_classifiers_and_unknown_names():
    assert not registry.higher_is_better("hd95_mm_val") and registry.higher_is_better("iou_val_ci_low")
    assert not registry.higher_is_better("ece") and registry.higher_is_better("auc")
    assert registry.higher_is_better("n_cases") and registry.label("no_such_metric") == "no such metric"


def test_what_a_metric_leaves_out_its_family_says():
    assert METRICS["psnr_clean"].n == "n_psnr_clean" and METRICS["psnr_clean"].needs_counterfactual
    assert METRICS["cycle_l1"].absent != METRICS["l1"].absent

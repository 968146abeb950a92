"""The pages of runs: what results/ holds is what they show."""

import json
from pathlib import Path

import pytest
import yaml

from docs.generate.results import BARE, filled, read_run, read_runs
from tests.report.trainings_fixture import pair, repeated, write

ROOT = Path(__file__).parents[2]
RUNS = read_runs(ROOT / "results")


@pytest.fixture
def folder(tmp_path):
    """A run of two methods and a control."""
    made = tmp_path / "toy"
    made.mkdir()
    (made / "params.yaml").write_text(yaml.safe_dump(
        {"dataset": "phantom", "datasets": {}, "image_size": 64, "seed": 5, "report": {"controls": ["random"]},
         "evaluate": {"confidence": 0.95}}))
    (made / "metrics.json").write_text(json.dumps({
        "rise": {"iou_val": 0.25}, "coin": {"iou_val": 0.5, "iou_val_ci_low": 0.4, "iou_val_ci_high": 0.6},
        "random": {"iou_val": 0.01}}))
    (made / "run.json").write_text(json.dumps({
        "title": "A toy", "command": "make repro", "profile": "cpu", "hardware": None, "seconds": 90,
        "commit": "abc1234", "date": "2026-01-01", "test_split": "3 slices", "order": 9, "columns": ["iou_val", "cv"],
        "notes": ["A note."]}))
    return made


def test_a_run_without_a_written_page_has_its_facts_and_its_table(folder):
    page = filled(BARE, read_run(folder))
    assert page.startswith("# A toy\n")
    for text in ("`make repro`", "not recorded", "2 minutes (90 s)", "`abc1234`, 2026-01-01", "3 slices", "* A note."):
        assert text in page
    rows = [line for line in page.splitlines() if line.startswith(("| `coin", "| `rise", "| `random"))]
    assert rows == ["| `coin` | 0.500 (0.400 to 0.600) | – |", "| `rise` | 0.250 | – |",
                    "| `random` *(control)* | 0.010 | – |"]


def test_a_run_that_was_trained_again_has_means_beside_its_values_and_says_what_stands(folder):
    run = read_run(folder)
    trainings = repeated(run.metrics, "iou_val", {"generators": {1: {"coin": 0.1}, 2: {"coin": 0.2}}}, run.params,
                         pairs=[pair("coin", "rise", 0.25, 0.1, 0.4)])
    write(trainings, folder / "trainings.json")
    page = filled(BARE, read_run(folder))
    assert "| `coin` | 0.500 (0.400 to 0.600)<br>mean 0.600 [0.500 to 0.700] | – |" in page
    assert "| `rise` | 0.250 | – |" in page and "3 trainings of the generators" in page
    assert "| +0.250 (+0.100 to +0.400), p 0.010 | yes |" in page and "A difference to the next method stands" in page
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text().replace("seed: 5", "seed: 6"))
    with pytest.raises(ValueError, match="trainings.json is not of this run: it was made with other parameters"):
        read_run(folder)


def test_a_key_that_is_missing_is_named(folder):
    about = json.loads((folder / "run.json").read_text())
    del about["commit"]
    (folder / "run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="run.json: missing key `commit`"):
        read_run(folder)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_committed_runs_are_complete(run):
    methods = set(run.metrics)
    assert methods and set(run.about["columns"]) <= {name for values in run.metrics.values() for name in values}
    assert run.params["dataset"] in run.params["datasets"] and run.about["profile"] == run.params["profile"]
    page = filled((ROOT / f"docs/results/{run.name}/index.md").read_text(), run)
    assert all(f"| `{method}`" in page for method in methods) and "<!--" not in page


def test_runs_have_an_order_of_their_own():
    assert [run.name for run in RUNS][0] == "default"
    assert len({run.about["order"] for run in RUNS}) == len(RUNS)

"""The pages of runs: what results/ holds is what they show."""

import json
from pathlib import Path

import pytest
import yaml

from docs.generate.results import BARE, filled, read_run, read_runs

ROOT = Path(__file__).parents[2]
RUNS = read_runs(ROOT / "results")


@pytest.fixture
def folder(tmp_path):
    """A run of two methods and a control."""
    made = tmp_path / "toy"
    made.mkdir()
    (made / "params.yaml").write_text(yaml.safe_dump(
        {"dataset": "phantom", "image_size": 64, "seed": 5, "report": {"controls": ["random"]}}))
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

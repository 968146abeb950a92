"""The gate of continuous integration in a fresh clone without data or cache, and the workflow that calls it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flipside.core.files import read_json
from flipside.regression.compare import incomparable
from flipside.regression.lockfile import stale_stages

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
STEPS = WORKFLOW["jobs"]["check"]["steps"]
# Not what `make test` hands down: below it another make would be chattier.
INHERITED = {key: value for key, value in os.environ.items()
             if key not in ("PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
ENVIRONMENT = {**INHERITED, "DVC_NO_ANALYTICS": "true",
               "PYTHONDONTWRITEBYTECODE": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
               "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
DVC_YAML = """
stages:
  draw_anomalies:
    cmd: python code/augment.py
    deps: [code/augment.py, code/common.py]
    params: [seed, {datasets.yaml: ["datasets.${dataset}"]}]
    outs: [data/slices, data/truth]
  explain:
    foreach: [coin, rise]
    do:
      cmd: python code/explain.py ${item}
      deps: [code/explain.py, code/common.py, data/slices]
      params: ["methods.${item}"]
      outs: ["data/explanations/${item}"]
  evaluate:
    cmd: python code/evaluate.py
    deps: [code/evaluate.py, data/explanations, data/slices, data/truth]
    params: [evaluate]
    metrics:
      - reports/metrics.json: {cache: false}
      - reports/classifier.json: {cache: false}
      - reports/judge.json: {cache: false}
"""
SCRIPTS = ("augment", "explain", "evaluate", "common")


def run(root, *command, check=True, **variables):
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False,
                            env={**ENVIRONMENT, **variables})
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository with this project's parameters, tolerances and metrics, but stages of a line each; data made up."""
    root = tmp_path_factory.mktemp("origin")
    for name in ("params.yaml", "datasets.yaml", "tolerances.yaml", "Makefile", "requirements.txt", "pyproject.toml",
                 "setup.py", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "flipside", root / "flipside", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "reports").mkdir()
    for name in ("metrics", "classifier", "judge"):
        shutil.copy(ROOT / f"reports/{name}.json", root / "reports")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "code").mkdir()
    for script in SCRIPTS:
        (root / f"code/{script}.py").write_text(f"print('{script}')\n")
    for folder in ("data/slices", "data/truth", "data/explanations/coin", "data/explanations/rise"):
        (root / folder).mkdir(parents=True)
        (root / folder / "made_up").write_text(folder)
    run(root, "git", "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    dvc(root, "commit", "-f", "-q")
    commit(root)
    return root


def dvc(root, *arguments):
    return run(root, sys.executable, "-m", "dvc", *arguments)


def commit(root):
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "a commit")


@pytest.fixture
def clone(origin, tmp_path, monkeypatch):
    """A fresh clone, as a CI runner has it, on a branch of its own; also the working folder."""
    root = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(origin), str(root))
    run(root, "git", "checkout", "-q", "-b", "change")
    (root / ".venv/bin").mkdir(parents=True)
    # In place of what `make .venv/installed` leaves.
    for name, module in (("python", ""), ("flipside", "-m flipside ")):
        command = root / ".venv/bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        command.chmod(0o755)
    (root / ".venv/installed").touch()
    monkeypatch.chdir(root)
    return root


def edit(file, old, new):
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def change_metrics(change, file="reports/metrics.json"):
    content = json.loads(Path(file).read_text())
    change(content)
    Path(file).write_text(json.dumps(content))


# A stale dvc.lock.


def test_a_fresh_clone_without_data_or_cache_is_not_stale(clone):
    assert not (clone / "data").exists() and not (clone / ".dvc/cache").exists()
    assert stale_stages() == {}


EDITS = {
    "a parameter": (lambda: edit("params.yaml", "seed: 777", "seed: 778"),
                    {"draw_anomalies": ["parameter seed modified"]}),
    "one method's parameter": (lambda: edit("params.yaml", "masks: 400 ", "masks: 401 "),
                               {"explain@rise": ["parameter methods.rise modified"]}),
    "a parameter that no stage declares": (lambda: edit("params.yaml", "threads: 0", "threads: 1"), {}),
    "another data set's block": (lambda: edit("datasets.yaml", "root: data/raw/curvas", "root: data/raw/other"), {}),
    "a stage's code": (lambda: edit("code/evaluate.py", "evaluate", "measure"),
                       {"evaluate": ["code/evaluate.py modified"]}),
    "shared code": (lambda: edit("code/common.py", "common", "shared"),
                    {name: ["code/common.py modified"] for name in ("draw_anomalies", "explain@coin", "explain@rise")}),
    "code that is gone": (lambda: Path("code/evaluate.py").unlink(), {"evaluate": ["code/evaluate.py deleted"]}),
    "code outside the pipeline": (lambda: edit("Makefile", "bench", "benchmark"), {}),
    "a command": (lambda: edit("dvc.yaml", "cmd: python code/evaluate.py", "cmd: python -u code/evaluate.py"),
                  {"evaluate": ["command changed"]}),
    "metrics that no run wrote": (lambda: change_metrics(lambda metrics: metrics["coin"].update(iou_val=0.99)),
                                  {"evaluate": ["reports/metrics.json modified"]}),
    "metrics that are gone": (lambda: Path("reports/judge.json").unlink(),
                              {"evaluate": ["reports/judge.json deleted"]}),
    "a new method": (lambda: edit("dvc.yaml", "[coin, rise]", "[coin, rise, cam]"), {"explain@cam": [
        "code/explain.py modified", "code/common.py modified", "params.yaml new"]}),
}


@pytest.mark.parametrize("what", EDITS)
def test_each_edit_makes_stale_what_rests_on_it(clone, what):
    change, expected = EDITS[what]
    change()
    assert stale_stages() == expected


def lock():
    return yaml.safe_load(Path("dvc.lock").read_text())["stages"]


def test_a_lock_put_together_from_two_runs_is_stale(clone):
    """As a merge leaves it that took one stage's entry from each side: no file in git tells the difference."""
    stages = lock()
    augment = next(out for out in stages["draw_anomalies"]["outs"] if out["path"] == "data/slices")
    content = yaml.safe_load(Path("dvc.lock").read_text())
    for out in content["stages"]["draw_anomalies"]["outs"]:
        out["md5"] = "0" * 32 + ".dir" if out["path"] == augment["path"] else out["md5"]
    Path("dvc.lock").write_text(yaml.safe_dump(content))
    reason = "data/slices is not the one that draw_anomalies wrote last"
    assert stale_stages() == {name: [reason] for name in ("explain@coin", "explain@rise", "evaluate")}


def test_a_method_left_out_leaves_an_entry_behind_that_is_not_stale(clone):
    """DVC keeps it in dvc.lock for ever; what it was run on no longer matters."""
    edit("dvc.yaml", "[coin, rise]", "[coin]")
    content = Path("dvc.lock").read_text()
    slices = next(out["md5"] for out in lock()["draw_anomalies"]["outs"] if out["path"] == "data/slices")
    head, rise = content.split("  explain@rise:")
    Path("dvc.lock").write_text(head + "  explain@rise:" + rise.replace(slices, "0" * 32 + ".dir", 1))
    assert "0000" in Path("dvc.lock").read_text()
    assert stale_stages() == {}


def test_without_a_lock_every_stage_is_stale(clone):
    (clone / "dvc.lock").unlink()
    assert set(stale_stages()) == {"draw_anomalies", "explain@coin", "explain@rise", "evaluate"}


def test_a_lock_with_conflict_markers_is_refused(clone):
    Path("dvc.lock").write_text("<<<<<<< HEAD\n" + Path("dvc.lock").read_text())
    with pytest.raises(RuntimeError, match=r"`dvc status --json` failed: .*dvc\.lock"):
        stale_stages()


def test_this_projects_own_lock_needs_no_data(tmp_path, monkeypatch):
    """Whatever of it is stale while the project is worked on: an edit of RISE adds RISE's stages and no data."""
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", "datasets.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("stages", "flipside"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "reports").mkdir()
    for name in ("metrics.json", "metrics.md", "classifier.json", "judge.json", "impact.md", "inpainter.json",
                 "trainings.json"):
        shutil.copy(ROOT / "reports" / name, tmp_path / "reports" / name)
    run(tmp_path, "git", "init", "-q")
    dvc(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    before = stale_stages()
    reasons = [reason for stage in before.values() for reason in stage]
    assert not [reason for reason in reasons if reason.startswith(("data/", "models/")) or "cache" in reason]
    edit("params.yaml", "masks: 400 ", "masks: 401 ")
    after = stale_stages()
    added = {stage for stage in after if "parameter methods.rise modified" in after[stage]}
    assert added == {"explain@rise"}
    assert {stage for stage in after if after[stage] != before.get(stage)} - {"check_params"} == {
        "explain@rise", "judge_counterfactuals", "measure_realism", "evaluate"}  # the others follow by what these write


# The command.


def compare(clone, rev="origin/main", check=False, **variables):
    return run(clone, "make", "compare", f"REV={rev}", check=check, **variables)


def section(page, title):
    return page.split(f"### {title}\n")[1].split("\n###")[0]


def test_nothing_changed_passes(clone):
    result = compare(clone, check=True)
    assert re.match(r"## Compared with origin/main \([0-9a-f]{7,}\)\n\n\*\*Passes\*\*", result.stdout)
    assert "| coin | iou_val ↑ |" in result.stdout and "**worse**" not in result.stdout
    assert "WARNING" not in result.stdout
    assert "No parameter differs" in section(result.stdout, "Parameters")
    assert "Fresh" in section(result.stdout, "dvc.lock")


def test_a_worse_number_fails_and_says_which(clone):
    """A run with another parameter that made COIN worse, committed whole: metrics and lock agree."""
    before = read_json("reports/metrics.json")["coin"]["iou_val"]
    change_metrics(lambda metrics: (metrics["coin"].update(iou_val=0.1), metrics.pop("cam")))
    edit("params.yaml", "cv_tau: 0.8", "cv_tau: 0.7")
    md5 = hashlib.md5(Path("reports/metrics.json").read_bytes()).hexdigest()
    content = yaml.safe_load(Path("dvc.lock").read_text())
    evaluate = content["stages"]["evaluate"]
    evaluate["params"]["params.yaml"]["evaluate"]["cv_tau"] = 0.7
    next(out for out in evaluate["outs"] if out["path"] == "reports/metrics.json")["md5"] = md5
    Path("dvc.lock").write_text(yaml.safe_dump(content))
    commit(clone)
    result = compare(clone)
    assert result.returncode != 0
    first = result.stdout.splitlines()[2]
    worse = f"{before - 0.1:.4f}"
    assert first.startswith(f"**Fails**: cam has lost all metrics; coin iou_val is worse by {worse} (tolerance 0.02).")
    assert f"| coin | iou_val ↑ | {before:.4f} | 0.1000 | -{worse} | 0.02 | **worse** | 217 |" in result.stdout
    assert "| params.yaml | evaluate.cv_tau | 0.8" in re.sub(" +", " ", section(result.stdout, "Parameters"))
    assert "Fresh" in section(result.stdout, "dvc.lock")


def test_a_stale_lock_fails_and_names_stage_and_reason(clone):
    edit("code/explain.py", "explain", "explain better")
    commit(clone)
    result = compare(clone)
    assert result.returncode != 0
    assert "**Fails**: dvc.lock is stale." in result.stdout
    assert "- **explain@coin**: code/explain.py modified" in section(result.stdout, "dvc.lock")


def test_another_data_set_is_said_to_be_incomparable(clone):
    edit("params.yaml", "dataset: phantom ", "dataset: curvas ")
    change_metrics(lambda metrics: metrics["coin"].update(iou_val=0.9))
    head = compare(clone).stdout.split("### Metrics")[0]
    assert "[!WARNING]" in head and "**not comparable**: `dataset` is phantom at origin/main, curvas now" in head


def test_other_test_cases_under_the_same_parameters_are_said(clone):
    assert incomparable("origin/main") == []
    truth = next(out["md5"] for out in lock()["draw_anomalies"]["outs"] if out["path"] == "data/truth")
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(truth, "0" * 32 + ".dir"))
    assert "**other cases** than at origin/main" in incomparable("origin/main")[0]


def drop_from_main(clone):
    Path("reports/judge.json").unlink()
    commit(clone)
    run(clone, "git", "checkout", "-q", "HEAD^", "--", "reports/judge.json")


@pytest.mark.parametrize(("rev", "break_it", "message"), [
    ("nosuch", lambda clone: None, "git knows no revision 'nosuch'; a fresh clone calls its branches REV=origin/main"),
    ("main", lambda clone: Path("reports/judge.json").unlink(), "reports/judge.json not found: run `dvc repro`"),
    ("HEAD", drop_from_main, "reports/judge.json not found at HEAD: choose a revision with a finished run"),
    ("main", lambda clone: change_metrics(lambda metrics: metrics["coin"].update(cv=float("nan"))),
     "reports/metrics.json (now): coin: `cv` is nan, expected a finite number"),
    ("main", lambda clone: edit("tolerances.yaml", "methods: {}", "methods: {pixel_app: 0.1}"),
     "`methods.pixel_app` is no metric"),
])
def test_what_cannot_be_compared_is_an_error_not_a_pass(clone, rev, break_it, message):
    break_it(clone)
    result = compare(clone, rev)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Passes" not in result.stdout


# The workflow.


def test_it_runs_on_pull_requests_and_on_main_with_the_whole_history():
    triggers = WORKFLOW[True]  # YAML 1.1 reads `on` as a boolean
    assert "pull_request" in triggers and triggers["push"] == {"branches": ["main"]}
    checkout, python = STEPS[0], STEPS[1]
    assert checkout["uses"].startswith("actions/checkout@") and checkout["with"]["fetch-depth"] == 0
    assert python["with"] == {"python-version": "3.11", "cache": "pip", "cache-dependency-path": "requirements.txt"}


@pytest.mark.parametrize("command", [step["run"] for step in STEPS if "run" in step])
def test_every_step_is_one_make_command_that_there_is(command):
    assert re.fullmatch(r"make [^\n;&|]+", command)
    words = command.replace('"$', '"').split()
    result = run(ROOT, "make", "--dry-run", "--silent", *words[1:], check=False)
    assert result.returncode == 0 and "No rule" not in result.stderr, result.stderr


def test_the_steps_come_in_the_order_that_leaves_the_committed_metrics_alone():
    commands = [step["run"] for step in STEPS if "run" in step]
    assert [command.split()[1] for command in commands] == [".venv/installed", "compare", "test", "profile", "repro"]
    assert "P=smoke" in commands[3]
    assert STEPS[-1]["uses"].startswith("actions/upload-artifact@")
    assert "reports/report.html" in STEPS[-1]["with"]["path"]


def test_the_compare_step_writes_the_job_summary_and_fails_where_the_gate_fails(clone):
    edit("params.yaml", "cv_tau: 0.8", "cv_tau: 0.7")
    before = read_json("reports/metrics.json")["coin"]["iou_val"]
    change_metrics(lambda metrics: metrics["coin"].update(iou_val=0.1, iou_val_ci_low=0.05))
    commit(clone)
    step = next(step["run"] for step in STEPS if step.get("run", "").startswith("make compare"))
    summary = clone.parent / "summary.md"
    summary.write_text("a step before\n")
    result = run(clone, "bash", "-e", "-c", step, check=False, REV="origin/main", GITHUB_STEP_SUMMARY=str(summary))
    assert result.returncode != 0
    page = summary.read_text()
    assert page.startswith("a step before\n## Compared with origin/main")
    assert result.stdout.strip() in page  # the same page in the log
    assert f"coin iou_val is worse by {before - 0.1:.4f} (tolerance 0.02); dvc.lock is stale." in page
    details = re.sub(" +", " ", page.split("<details>")[1])
    assert f"| reports/metrics.json | coin.iou_val | {str(before)[:5]}" in details  # `dvc metrics diff --md`
    assert "| coin.iou_val_ci_low |" in details
    assert "| params.yaml | evaluate.cv_tau | 0.8 | 0.7 |" in re.sub(" +", " ", section(page, "Parameters"))

"""`flipside repeat` in a project whose stages write down which seeds they were run with: what is run again, where, and
that a kill costs nothing that was finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flipside.core.store import write_store
from flipside.report.trainings import EMPTY, counting, read_trainings
from tests.cli.test_experiments import ENVIRONMENT, dvc, run
from tests.stages.project_of_two import slices

ROOT = Path(__file__).parents[2]
STAGE = '''
"""One stage for all: python -m stages.toy <kind> <name>."""
import json, os, shutil, sys, time
from pathlib import Path

import yaml

kind, name = sys.argv[1:]
params = yaml.safe_load(Path("params.yaml").read_text())
log = Path(os.environ["LOG"])


def write(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def offset(path):
    return json.loads(Path(path).read_text())


if kind == "prepare":
    log.open("a").write("prepare\\n")
    shutil.copytree("data/raw/phantom", "data/slices", dirs_exist_ok=True)
elif kind in ("classifiers", "generators", "encoders"):
    own = params[kind][name]["seed_offset"]
    if os.environ.get("HANG") == f"{name}:{own}":
        Path(os.environ["LOG"] + ".hangs").touch()
        time.sleep(60)
    log.open("a").write(f"{name} {own}\\n")
    write(f"models/{kind}/{name}.json", own)
    if kind == "classifiers":
        write(f"reports/{name}.json", {"auc": 1.0})
else:
    import numpy as np
    import pandas as pd

    log.open("a").write("evaluate\\n")
    classifier = offset("models/classifiers/classifier.json")
    coin = 0.6 + 0.02 * offset("models/generators/coin.json") - 0.2 * classifier
    blobs = 0.4 + 0.01 * offset("models/generators/blobgan.json") + 0.001 * offset("models/encoders/blobgan.json")
    means = {"coin": coin, "octet": blobs - 0.1 * classifier, "cam": 0.3 + 0.25 * classifier, "random": 0.01}
    index = pd.read_csv("data/slices/index.csv", dtype={"patient_id": str})
    index = index[(index["split"] == "test") & (index["label"] == 1)]
    noise = np.linspace(-0.01, 0.01, len(index))
    cases = [index[["slice_id", "patient_id"]].assign(method=method, iou_val=mean + noise * len(method))
             for method, mean in means.items()]
    pd.concat(cases).to_csv("reports/cases.csv", index=False)
    write("reports/metrics.json", {method: {"iou_val": mean, "pixel_ap": mean / 2, "seconds_per_image": time.time(),
                                            "n_cases": len(index)} for method, mean in means.items()})
'''
DVC_YAML = {"stages": {
    "prepare": {"cmd": "python -m stages.toy prepare all", "deps": ["data/raw/phantom", "stages/toy.py"],
                "outs": ["data/slices"]},
    **{f"train_{kind}": {"foreach": names, "do": {
        "cmd": f"python -m stages.toy {kind} ${{item}}", "deps": ["data/slices", "stages/toy.py", *needs],
        "params": [f"{kind}.${{item}}", "seed"], "outs": [f"models/{kind}/${{item}}.json"], **written}}
       for kind, names, needs, written in (
           ("classifiers", ["classifier", "judge"], [],
            {"metrics": [{"reports/${item}.json": {"cache": False}}]}),
           ("generators", ["coin", "blobgan"], ["models/classifiers/classifier.json"], {}),
           ("encoders", ["blobgan"], ["models/generators/blobgan.json"], {}))},
    "evaluate": {"cmd": "python -m stages.toy evaluate all", "params": ["evaluate"],
                 "deps": ["models", "data/slices", "stages/toy.py"], "outs": ["reports/cases.csv"],
                 "metrics": [{"reports/metrics.json": {"cache": False}}]},
    "report": {"cmd": "cp reports/trainings.json reports/report.html",
               "deps": ["reports/metrics.json", "reports/trainings.json"], "outs": ["reports/report.html"]},
}}
GENERATORS = [f"{name} {{seed}}" for name in ("blobgan", "blobgan", "coin")]  # the generator and its encoder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """After `dvc repro` and a commit; its raw scans are no output of DVC's."""
    root = tmp_path_factory.mktemp("finished")
    for name in ("params.yaml", "datasets.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "flipside", root / "flipside", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "stages").mkdir()
    (root / "stages/toy.py").write_text(STAGE)
    (root / "dvc.yaml").write_text(yaml.safe_dump(DVC_YAML))
    images, lesion, index = slices()
    write_store(root / "data/raw/phantom", images, lesion, index)
    (root / "reports").mkdir()
    shutil.copy(ROOT / "reports/trainings.json", root / "reports")
    edit(root, lambda values: values["report"].update(rank_by="iou_val"))
    ENVIRONMENT["LOG"] = os.devnull
    run(root, "git", "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    dvc(root, "repro", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "start")
    return root


@pytest.fixture
def root(finished, tmp_path, monkeypatch):
    """A copy of the finished project, whose stages write a log of their own."""
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    monkeypatch.setitem(ENVIRONMENT, "LOG", str(tmp_path / "log"))
    return tmp_path / "project"


def edit(root, change):
    values = yaml.safe_load((root / "params.yaml").read_text())
    change(values)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def ran(root):
    """What stages have been run since this was asked last."""
    log = root.parent / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("")
    return sorted(lines)


def repeat(root, *options, check=True):
    return run(root, sys.executable, "-m", "flipside", "repeat", *options, check=check)


def found(root):
    return read_trainings(root / "reports/trainings.json")


def with_seed(seed):
    return [line.format(seed=seed) for line in GENERATORS]


def test_trained_rows_are_trained_again_and_nothing_else_of_the_project_changes(root):
    result = repeat(root, "--seeds", "2", "--rows", "generators")
    assert ran(root) == sorted(["evaluate", *with_seed(1)])  # not the data, the classifier or the judge
    trainings = found(root)
    assert trainings.count("generators") == 2 and trainings.count("classifier") == 0
    spread = trainings.spread("generators", "coin", "iou_val")
    assert (spread.low, spread.high, spread.mean) == pytest.approx((0.6, 0.62, 0.61))
    assert trainings.spread("generators", "octet", "pixel_ap").high == pytest.approx(0.411 / 2)  # of its encoder, too
    assert trainings.spread("generators", "cam", "iou_val") is None  # rests on no generator
    assert [(pair.first, pair.second) for pair in trainings.pairs] == [
        ("coin", "octet"), ("octet", "cam"), ("cam", "random")]
    assert trainings.pairs[0].low < 0.2 < trainings.pairs[0].high
    assert run(root, "git", "status", "--porcelain").stdout.split() == ["M", "reports/trainings.json"]
    assert list(json.loads(dvc(root, "status", "--json").stdout)) == ["report"]
    assert not (root / ".scratch/repeat").exists() and "`dvc repro` draws the report" in result.stdout


def test_the_second_series_trains_the_classifier_too_and_the_judge_never(root):
    repeat(root, "--seeds", "2", "--rows", "generators")
    ran(root)
    assert "2 repetitions, 1 of them have been run" in repeat(root, "--seeds", "2").stdout
    assert ran(root) == sorted(["classifier 1", "evaluate", *with_seed(1)])
    trainings = found(root)
    assert trainings.spread("classifier", "coin", "iou_val").low == pytest.approx(0.42)
    assert trainings.spread("classifier", "cam", "iou_val").high == pytest.approx(0.55)
    assert trainings.spread("classifier", "random", "iou_val") is None
    repeat(root, "--seeds", "2")
    assert ran(root) == [] and found(root) == trainings
    dvc(root, "repro", "-q")
    run(root, "git", "commit", "-qam", "trainings")
    assert "2 of them have been run" in repeat(root, "--seeds", "2").stdout  # another commit, the same run
    assert ran(root) == []


def test_a_killed_run_goes_on_where_it_was(root):
    words = [sys.executable, "-m", "flipside", "repeat", "--seeds", "3", "--rows", "generators"]
    process = subprocess.Popen(words, cwd=root, env=ENVIRONMENT | {"HANG": "coin:2"}, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hangs = root.parent / "log.hangs"
    for _ in range(600):
        if hangs.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    busy = repeat(root, check=False)
    assert busy.returncode == 1 and "another process is at work in .scratch/repeat" in busy.stderr
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = ran(root)
    assert set(with_seed(1)) <= set(before) and "coin 2" not in before
    assert found(root).count("generators") == 2  # what was finished has been written down
    result = repeat(root, "--seeds", "3", "--rows", "generators")
    assert "goes on in .scratch/repeat" in result.stdout
    assert sorted([*before, *ran(root)]) == sorted(["evaluate"] * 2 + with_seed(1) + with_seed(2))
    assert found(root).count("generators") == 3


def test_a_run_that_is_out_of_date_is_not_repeated(root):
    edit(root, lambda values: values["generators"]["coin"].update(steps=7))
    result = repeat(root, check=False)
    assert result.returncode == 1 and "the run is out of date: train_generators@coin" in result.stderr
    assert "`dvc repro` first" in result.stderr and ran(root) == []


def test_repetitions_of_other_parameters_are_begun_anew(root):
    repeat(root, "--seeds", "2", "--rows", "generators")
    edit(root, lambda values: values["generators"]["coin"].update(steps=7))
    dvc(root, "repro", "-q", "evaluate")
    ran(root)
    result = repeat(root, "--seeds", "2", "--rows", "generators")
    assert "is ignored: it was made with other parameters" in result.stdout
    assert ran(root) == ["coin 1", "evaluate"]  # DVC still has the others
    assert found(root).count("generators") == 2


def test_another_metric_that_ranks_needs_no_training(root):
    repeat(root, "--seeds", "2", "--rows", "generators")
    edit(root, lambda values: values["report"].update(rank_by="pixel_ap", title="Another"))
    ran(root)
    repeat(root, "--seeds", "2", "--rows", "generators")
    assert ran(root) == [] and found(root).ranked_by == "pixel_ap" and found(root).count("generators") == 2


def test_without_the_runs_outputs_the_reader_is_told_what_to_do(root):
    shutil.rmtree(root / ".dvc/cache")
    result = repeat(root, check=False)
    assert result.returncode == 1 and "Run `dvc repro`" in result.stderr


def test_the_committed_file_is_empty_or_that_of_a_run():
    recorded = read_trainings(ROOT / "reports/trainings.json")
    assert recorded == EMPTY or recorded.series
    assert counting(EMPTY, {}, {}, "iou_val") == (EMPTY, "")

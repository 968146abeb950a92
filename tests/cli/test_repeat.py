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

from flipside.cli.repeat import Rows, repeat
from flipside.core.params import ParamsError, read_datasets, read_params
from flipside.core.paths import METRICS
from flipside.core.store import write_store
from flipside.experiments.project_copy import BusyError
from flipside.report.trainings import EMPTY, read_trainings
from tests.cli.test_experiments import ENVIRONMENT, dvc, run, start
from tests.report.trainings_fixture import repeated, write
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
           ("encoders", ["blobgan"], ["models/classifiers/classifier.json", "models/generators/blobgan.json"], {}))},
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
    start(root)
    return root


@pytest.fixture
def root(finished, tmp_path, monkeypatch):
    """A copy of the finished project, whose stages write a log of their own; the test has gone into it."""
    root = tmp_path / "project"
    shutil.copytree(finished, root, symlinks=True)
    monkeypatch.chdir(root)
    for environment in (ENVIRONMENT, os.environ):
        monkeypatch.setitem(environment, "LOG", str(tmp_path / "log"))
    return root


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


def with_seed(seed):
    return [line.format(seed=seed) for line in GENERATORS]


def test_a_run_is_trained_again_and_nothing_else_of_the_project_changes(root, capsys):
    repeat(2, Rows.GENERATORS)
    assert ran(root) == sorted(["evaluate", *with_seed(1)])  # not the data, the classifier or the judge
    trainings = read_trainings()
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
    assert not (root / ".scratch/repeat").exists() and "`dvc repro` draws the report" in capsys.readouterr().out

    # The second series trains the classifier too, the judge never.
    repeat(2)
    assert "2 repetitions, 1 of them have been run" in capsys.readouterr().out
    assert ran(root) == sorted(["classifier 1", "evaluate", *with_seed(1)])
    trainings = read_trainings()
    assert trainings.spread("classifier", "coin", "iou_val").low == pytest.approx(0.42)
    assert trainings.spread("classifier", "cam", "iou_val").high == pytest.approx(0.55)
    assert trainings.spread("classifier", "random", "iou_val") is None

    # What has been run is not run again: not at another commit, nor where another metric ranks.
    dvc(root, "repro", "-q")
    edit(root, lambda values: values["report"].update(rank_by="pixel_ap", title="Another"))
    run(root, "git", "commit", "-qam", "trainings")
    repeat(2)
    assert "2 of them have been run" in capsys.readouterr().out and ran(root) == []
    assert read_trainings().series == trainings.series and read_trainings().ranked_by == "pixel_ap"


def test_a_killed_run_goes_on_where_it_was(root):
    words = (sys.executable, "-m", "flipside", "repeat", "--seeds", "3", "--rows", "generators")
    process = subprocess.Popen(words, cwd=root, env=ENVIRONMENT | {"HANG": "coin:2"}, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hangs = root.parent / "log.hangs"
    while not hangs.exists() and process.poll() is None:
        time.sleep(0.1)
    with pytest.raises(BusyError, match="another process is at work in .scratch/repeat"):
        repeat(3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = ran(root)
    assert set(with_seed(1)) <= set(before) and "coin 2" not in before
    assert read_trainings().count("generators") == 2  # what was finished has been written down
    assert "goes on in .scratch/repeat" in run(root, *words).stdout
    assert sorted([*before, *ran(root)]) == sorted(["evaluate"] * 2 + with_seed(1) + with_seed(2))
    assert read_trainings().count("generators") == 3


def test_only_a_finished_run_is_repeated_and_repetitions_of_another_one_do_not_count(root, capsys):
    metrics, parameters = json.loads(Path(METRICS).read_text()), read_params() | read_datasets()
    edit(root, lambda values: values["generators"]["coin"].update(steps=7))
    write(repeated(metrics, "iou_val", {"generators": {1: {"coin": 0.2}}}, parameters))
    with pytest.raises(RuntimeError, match="the run is out of date: train_generators@coin.*`dvc repro` first"):
        repeat(2)
    assert ran(root) == []
    dvc(root, "repro", "-q", "evaluate")
    ran(root)
    repeat(2, Rows.GENERATORS)
    assert "trainings.json is ignored: it was made with other parameters" in capsys.readouterr().out
    assert ran(root) == sorted(["evaluate", *with_seed(1)]) and read_trainings().count("generators") == 2
    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(RuntimeError, match="cache lacks outputs of the run.*\n?.*Run `dvc repro`"):
        repeat(3)


def test_an_imported_classifier_is_not_trained_again(root):
    own = {"source": "timm", "pretraining": "data/foreign", "checkpoint": "w.pt", "architecture": "vit", "classes": 1,
           "class_index": "binary", "channels": 3, "mean": [0.5], "std": [0.5]}
    edit(root, lambda values: values["classifiers"].update(classifier=own))
    with pytest.raises(ParamsError, match="`classifiers.classifier` is imported .*ROWS=generators"):
        repeat(2)
    assert ran(root) == []


def test_the_committed_file_is_empty_or_that_of_a_run():
    recorded = read_trainings(ROOT / "reports/trainings.json")
    assert recorded == EMPTY or recorded.series

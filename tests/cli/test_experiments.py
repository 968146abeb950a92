"""Experiments as a user runs them: every kind of parameter through `dvc exp run -S`, grids, the queue, and their table.

The project's own params.yaml and checks; the pipeline is one cheap stage, `evaluate`, that writes down what it read.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flipside.cli.experiments import COLUMNS, show_command
from flipside.core.params import PARAMS_FILE, SECTIONS, file_of
from flipside.experiments.results import parameters
from tests.quick_python import quick_python

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, "DVC_NO_ANALYTICS": "true",
               "PYTHONDONTWRITEBYTECODE": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
               "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull,
               "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
STAGE = """
import json
from pathlib import Path
from flipside.core.params import check_all, load_section, read_params
from flipside.classifiers.blocks import ClassifiersParams
from flipside.generators.coin import CoinParams
from flipside.scans.layouts import DatasetsParams

check_all()
values = read_params()
coin = load_section("generators.coin", CoinParams)
read = {"coin": coin.model_dump(), "methods": list(values["methods"]),
        "classifiers": load_section("classifiers", ClassifiersParams).model_dump(mode="json"),
        "datasets": load_section("datasets", DatasetsParams).model_dump(mode="json")}
Path("read.json").write_text(json.dumps(read))
metrics = json.loads(Path("base.json").read_text())
metrics["coin"]["iou_val"] = 0.5 + coin.lambda_total_variation
metrics["coin"]["iou_label_free"] = metrics["coin"]["iou_val"]
metrics["coin"]["iou_val_ci_low"], metrics["coin"]["iou_val_ci_high"] = 0.4, 0.9
Path("reports/metrics.json").write_text(json.dumps(metrics))
"""
DVC_YAML = {"stages": {"evaluate": {
    "cmd": "python -m read", "deps": ["read.py", "base.json"],
    "params": [*(section for section in SECTIONS if file_of(section) == PARAMS_FILE),
               {"datasets.yaml": ["datasets.${dataset}"]}],
    "outs": [{"read.json": {"cache": False}}], "metrics": [{"reports/metrics.json": {"cache": False}}]}}}
KINDS = {
    "float": ("generators.coin.lambda_total_variation=0.125",
              lambda read: read["coin"]["lambda_total_variation"], 0.125),
    "small float": ("generators.coin.learning_rate=1e-06", lambda read: read["coin"]["learning_rate"], 1e-6),
    "integer": ("generators.coin.skips=1", lambda read: read["coin"]["skips"], 1),
    "yes or no": ("generators.coin.spectral_norm=false", lambda read: read["coin"]["spectral_norm"], False),
    "text": ("generators.coin.fuse=tanh", lambda read: read["coin"]["fuse"], "tanh"),
    "text that was null": ('datasets.yaml:datasets.phantom.patient="^(.*)_a"',
                           lambda read: read["datasets"]["phantom"]["patient"], "^(.*)_a"),
    "null that was text": ("datasets.yaml:datasets.curvas.patient=null",
                           lambda read: read["datasets"]["curvas"]["patient"], None),
    "list": ("generators.coin.channels=[8,16]", lambda read: read["coin"]["channels"], [8, 16]),
    "entry in a list": ("classifiers.classifier.augmentation.0.probability=0.9",
                        lambda read: read["classifiers"]["classifier"]["augmentation"][0],
                        {"name": "horizontal_flip", "probability": 0.9}),
    "a method left out": ("~methods.rise", lambda read: "rise" in read["methods"], False),
}


def run(root, *command, check=True):
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert not check or result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


def dvc(root, *arguments, check=True):
    return run(root, sys.executable, "-m", "dvc", *arguments, check=check)


def overrides(*settings):
    return [word for setting in settings for word in ("-S", setting)]


def start(root):
    """A project becomes a repository: initialised, run once, committed."""
    run(root, "git", "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    dvc(root, "repro", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "start")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """After one `dvc repro`, committed, with three more experiments: one with a setting of each kind, two of a grid."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("params.yaml", "datasets.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    for name in ("flipside", "experiments"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "dvc.yaml").write_text(yaml.safe_dump(DVC_YAML))
    (root / "read.py").write_text(STAGE)
    shutil.copy(ROOT / "reports/metrics.json", root / "base.json")
    (root / "reports").mkdir()
    with quick_python() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "PATH", f"{folder}:{ENVIRONMENT['PATH']}")
        start(root)
        yield root


@pytest.fixture(scope="module")
def before(repository):
    return json.loads((repository / "read.json").read_text())


@pytest.fixture(scope="module")
def after(repository, before):
    """What the stage read under one `dvc exp run` with a setting of each kind; the workspace is put back."""
    dvc(repository, "exp", "run", "-n", "each-kind", *overrides(*(setting for setting, _, _ in KINDS.values())))
    read = json.loads((repository / "read.json").read_text())
    run(repository, "git", "checkout", "-q", ".")
    return read


@pytest.fixture(scope="module")
def queued(repository, after):
    """Experiments of a grid of two by two; two of them are taken off the queue again, the others run."""
    grid = ("generators.coin.lambda_total_variation=0.0,0.1", "generators.coin.channels=[8,16],[8,16,32]")
    output = dvc(repository, "exp", "run", "--queue", *overrides(*grid)).stdout
    names = [line.split("'")[1] for line in output.splitlines() if line.startswith("Queued experiment")]
    waiting = {name: found for name, found in experiments(repository).items() if name in names}
    dvc(repository, "queue", "remove", *[name for name in names if value(waiting[name], "channels") == [8, 16]])
    dvc(repository, "exp", "run", "--run-all", "-j", "1")
    return waiting


def experiments(repository):
    shown = json.loads(dvc(repository, "exp", "show", "--json", "--hide-workspace").stdout)
    return {one["name"]: one["revs"][0]["data"] for one in shown[0]["experiments"] or []}


def test_another_data_set_is_one_parameter_and_its_folder_is_in_the_other_file(repository, queued):
    """DVC tracks the block of the data set that is used, and shows which one it was."""
    settings = ("dataset=curvas", "datasets.yaml:datasets.curvas.root=/elsewhere")
    dvc(repository, "exp", "run", "-n", "elsewhere", *overrides(*settings))
    tracked = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]["evaluate"]["params"]
    assert tracked["params.yaml"]["dataset"] == "curvas"
    assert list(tracked["datasets.yaml"]) == ["datasets.curvas"]
    assert tracked["datasets.yaml"]["datasets.curvas"]["root"] == "/elsewhere"
    assert json.loads((repository / "read.json").read_text())["datasets"]["curvas"]["root"] == "/elsewhere"
    assert dvc(repository, "status").stdout.strip() == "Data and pipelines are up to date."
    difference = dvc(repository, "params", "diff", "--md").stdout
    assert "datasets.curvas.root" in difference and "| params.yaml   | dataset" in difference
    run(repository, "git", "checkout", "-q", ".")
    shown = parameters(experiments(repository)["elsewhere"])
    assert shown["dataset"] == "curvas" and shown["datasets"]["curvas"]["root"] == "/elsewhere"
    dvc(repository, "exp", "remove", "elsewhere")


def test_the_block_of_a_data_set_that_is_not_used_makes_nothing_stale(repository, queued):
    dvc(repository, "checkout", "-q")
    file = repository / "datasets.yaml"
    before = file.read_text()
    for changed, stale in (("data/raw/curvas", False), ("data/raw/phantom/cases", True)):
        file.write_text(before.replace(f"root: {changed}", "root: elsewhere"))
        assert bool(json.loads(dvc(repository, "status", "--json").stdout)) == stale
    file.write_text(before)


def value(data, name):
    return data["params"]["params.yaml"]["data"]["generators"]["coin"][name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_reads_what_was_set(before, after, kind):
    _, of, expected = KINDS[kind]
    assert of(after) == expected and type(of(after)) is type(expected)
    assert of(before) != expected


def test_nothing_else_changes(before, after):
    """DVC rewrites params.yaml in a style of its own, aliases and quotes included."""
    settings = [("coin", "lambda_total_variation"), ("coin", "learning_rate"), ("coin", "skips"), ("coin", "fuse"),
                ("coin", "spectral_norm"), ("coin", "channels"), ("datasets", "phantom", "patient"),
                ("datasets", "curvas", "patient"), ("classifiers", "classifier", "augmentation", 0, "probability")]
    before, after = json.loads(json.dumps(before)), json.loads(json.dumps(after))
    for read in (before, after):
        read["methods"] = [method for method in read["methods"] if method != "rise"]
        for *parents, last in settings:
            node = read
            for part in parents:
                node = node[part]
            del node[last]
    assert after == before


def test_a_misspelt_key_is_refused(repository):
    result = dvc(repository, "exp", "run", "-S", "generators.coin.learning_rat=1e-06", check=False)
    assert result.returncode != 0 and "Key 'learning_rat' is not in struct" in result.stderr


def test_a_grid_queues_every_combination(queued):
    assert sorted((value(data, "lambda_total_variation"), value(data, "channels")) for data in queued.values()) == [
        (0.0, [8, 16]), (0.0, [8, 16, 32]), (0.1, [8, 16]), (0.1, [8, 16, 32])]


def test_queued_experiments_run_apart_and_leave_the_workspace_alone(repository, queued):
    found = {value(data, "lambda_total_variation"): data["metrics"]["reports/metrics.json"]["data"]["coin"]["iou_val"]
             for name, data in experiments(repository).items() if name in queued}
    assert found == {0.0: 0.5, 0.1: 0.6}
    assert run(repository, "git", "status", "--porcelain").stdout == ""


def test_the_table_has_the_columns_that_differ_and_few_metrics(repository, queued):
    """`dvc exp show` alone lists every metric of every method and all parameters."""
    run(repository, "git", "checkout", "-q", ".")
    table = run(repository, sys.executable, "-m", "flipside", "experiments", "--csv").stdout.splitlines()
    header = table[0].split(",")
    metrics = [name for name in header if name.startswith("coin.")]
    assert "coin.iou_val" in metrics and set(metrics) <= {f"coin.{name}" for name in COLUMNS}
    changed = ("lambda_total_variation", "channels", "learning_rate")
    assert {f"generators.coin.{name}" for name in changed} <= set(header)
    assert not {"seed", "generators.coin.steps", "coin.iou_val_ci_low", "base.json", "read.py"} & set(header)
    place = header.index("coin.iou_label_free")
    best = [line for line in table[1:] if "each-kind" in line or any(name in line for name in queued)]
    assert "each-kind" in best[0] and "0.625" in best[0].split(",")[place]  # best first
    all_columns = dvc(repository, "exp", "show", "--csv").stdout.splitlines()[0].split(",")
    assert len(header) < 30 < 500 < len(all_columns)


def test_the_sweep_is_drawn_from_what_dvc_recorded(repository, queued):
    result = run(repository, sys.executable, "-m", "flipside", "sweep", "--param",
                 "generators.coin.lambda_total_variation", "--metric", "coin.iou_val", "--out", "docs/sweep.png")
    assert (repository / "docs/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "docs/sweep.png: 4 results" in result.stdout
    assert "each-kind" in result.stdout


def test_a_published_ablation_is_queued_run_and_set_beside_its_paper(repository, queued):
    ablation = (sys.executable, "-m", "flipside", "ablations", "table_2", "COIN", "no_total_variation")
    said = run(repository, *ablation).stdout
    assert "# table-2-COIN: params.yaml as it stands" in said and "--name table-2-no-total-variation" in said
    dvc(repository, "exp", "run", "--run-all", "-j", "1")
    assert "table-2-no-total-variation: has been run" in run(repository, *ablation).stdout
    text = run(repository, sys.executable, "-m", "flipside", "ablation-tables", "table_2").stdout
    assert text.strip() == (repository / "reports/ablations/table_2.md").read_text().strip()
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line.startswith("|")}
    iou_val = rows["row"].index("IoU val")
    assert rows["no total variation"][iou_val] == "0.500"  # the stage's 0.5 + lambda_total_variation
    assert float(rows["COIN"][iou_val]) == 0.5 + value(experiments_base(repository), "lambda_total_variation")
    assert "no_classifier: no result yet" in text and "no_reconstruction: no result yet" in text


def experiments_base(root):
    return json.loads(dvc(root, "exp", "show", "--json", "--hide-workspace").stdout)[0]["data"]


def test_experiments_are_sorted_best_first():
    assert show_command("iou_val", "coin")[-4:] == ["--sort-by", "coin.iou_val", "--sort-order", "desc"]
    assert show_command("fp_area_healthy", "coin")[-1] == "asc"

"""`flipside demo`: a project of its own in which every stage finds what it needs, and nothing else is touched."""

import os
import shutil
from pathlib import Path

import pytest

from flipside.cli import demo as tool
from flipside.cli.demo import METHODS, demo, write_project
from flipside.core.params import ParamsError, check_all, read_params
from flipside.experiments import project_copy
from flipside.experiments.project_copy import BusyError, alone
from flipside.report.trainings import EMPTY, TRAININGS, read_trainings
from stages import check_params
from tests.test_dvc_yaml import inside, paths, resolved_stages

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what the command reads; the test has gone into it."""
    for name in ("params.yaml", "datasets.yaml", "dvc.yaml", "dvc.lock", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("flipside", "stages", "profiles", ".dvc/plots"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and not inside(path.relative_to(folder).as_posix(), "demo")}


def test_every_stage_finds_what_it_needs_and_nothing_else_of_the_project_changes(project, monkeypatch):
    before = files(project)
    write_project(Path("demo"))
    assert files(project) == before
    monkeypatch.chdir(project / "demo")
    check_all()
    check_params.main()
    assert read_params()["profile"] == "demo" and read_trainings(Path(TRAININGS)) == EMPTY
    stages = resolved_stages(read_params(), Path())
    assert {name for name in stages if name.startswith("explain@")} == {f"explain@{method}" for method in METHODS}
    written = [out for stage in stages.values() for out in paths(stage.get("outs", []) + stage.get("metrics", []))]
    for name, stage in stages.items():
        for dep in paths(stage["deps"]):
            made = any(inside(dep, out) or inside(out, dep) for out in written)
            assert made or Path(dep).exists(), f"{name} needs {dep}"


def test_a_second_run_keeps_artifacts_and_takes_the_code_and_the_parameters_as_they_are_now(project):
    write_project(Path("demo"))
    made = Path("demo/data/slices/images.npy")
    made.parent.mkdir(parents=True)
    made.write_text("made")
    (project / "stages/report.py").unlink()
    (project / "flipside/core/new.py").write_text("NEW = 1\n")
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace("seed: 777", "seed: 778"))
    write_project(Path("demo"))
    assert made.read_text() == "made" and read_params(Path("demo/params.yaml"))["seed"] == 778
    assert Path("demo/flipside/core/new.py").is_file() and not Path("demo/stages/report.py").exists()


def test_it_tells_where_the_report_is_and_that_its_numbers_compare_nothing(project, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(project_copy, "reproduce", lambda folder, target, lock: ran.append((folder, target)))
    monkeypatch.setattr(tool, "ranking", lambda: print(f"report: {Path('reports/report.html').resolve()}"))
    demo()
    assert ran == [(Path("demo"), "report")]
    told = capsys.readouterr().out
    assert f"report: {project / 'demo/reports/report.html'}" in told and "numbers are a demo's" in told


def test_what_cannot_be_run_is_refused_before_any_work(project):
    with alone(Path("demo")), pytest.raises(BusyError, match="at work in demo"):
        demo()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("generators:\n  coin:", "generators:\n  coins:"))
    with pytest.raises(ParamsError, match="missing parameter `generators.coin`"):
        demo()
    assert os.getcwd() == str(project)

"""`flipside check` prepares and shows; where the preparation fails it shows nothing."""

import subprocess
from pathlib import Path

import pytest
import yaml

from flipside.cli import check
from flipside.scans.layout import DatasetError
from tests.parameters import project_parameters, write_parameters


@pytest.fixture
def repro(tmp_path, monkeypatch):
    """A project's parameters, and the commands that `check` runs, which do nothing but end as told."""
    monkeypatch.chdir(tmp_path)
    write_parameters(tmp_path, project_parameters())
    ran, status = [], [0]
    monkeypatch.setattr(check.subprocess, "run", lambda command, check: ran.append(command) or
                        subprocess.CompletedProcess(command, status[0]))
    return ran, status


def test_only_the_preparation_runs(repro, monkeypatch):
    shown = []
    monkeypatch.setattr(check, "show", shown.append)
    check.check()
    assert [command[-2:] for command in repro[0]] == [("repro", "draw_anomalies")] or [
        command[-2:] for command in repro[0]] == [["repro", "draw_anomalies"]]
    assert shown == [yaml.safe_load(Path("params.yaml").read_text())["seed"]]


def test_data_that_are_not_there_are_named_with_folder_and_page_before_anything_runs(repro):
    file = Path("params.yaml")
    values = yaml.safe_load(file.read_text()) | {"dataset": "shenzhen"}
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(DatasetError, match="data/raw/shenzhen not found.*It is available from https://lhncbc.nlm.nih.gov"):
        check.check()
    assert repro[0] == []


def test_nothing_is_shown_where_the_preparation_fails(repro, monkeypatch):
    repro[1][0] = 1
    monkeypatch.setattr(check, "show", lambda seed: pytest.fail("shown"))
    with pytest.raises(RuntimeError, match="preparation failed"):
        check.check()

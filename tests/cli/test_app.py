"""The command line as a whole: its help, its errors, and that nothing heavy is loaded for either."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flipside.cli import app

ROOT = Path(__file__).parents[2]
COMMANDS = ("demo", "init", "check", "repro", "ranking", "profile", "predict", "export", "apply", "compare",
            "experiments", "sweep", "ablations", "repeat", "ablation-tables", "generator-table", "tace-tables",
            "review")
HEAVY = ("torch", "pandas", "matplotlib", "scipy", "dvc", "ruamel.yaml")


def flipside(folder, *arguments, **variables):
    environment = {key: value for key, value in os.environ.items() if key != "FLIPSIDE_TRACEBACK"}
    return subprocess.run([sys.executable, "-m", "flipside", *arguments], cwd=folder, capture_output=True, text=True,
                          check=False, env=environment | {"PYTHONPATH": str(ROOT)} | variables)


def test_every_command_is_listed_with_a_line_of_help_that_fits():
    lines = CliRunner().invoke(app, ["--help"]).output.partition("Commands:")[2].splitlines()[1:]
    assert sorted(line.split()[0] for line in lines) == sorted(COMMANDS)
    assert not [line for line in lines if len(line.split()) < 3 or line.endswith("...")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_argument_and_option_is(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    parameters = typer.main.get_command(app).commands[command].params
    assert all(len(parameter.help.split()) > 1 for parameter in parameters)


def test_help_loads_nothing_heavy():
    code = f"import sys; from flipside.cli import app; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                            env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert result.stdout.strip() == "[]"


def test_an_error_is_one_line_and_the_traceback_is_for_those_who_ask(tmp_path):
    result = flipside(tmp_path, "profile", "huge")
    assert result.returncode == 1 and "error: no profile 'huge'" in result.stderr and "Traceback" not in result.stderr
    result = flipside(tmp_path, "profile", "huge", FLIPSIDE_TRACEBACK="1")
    assert result.returncode != 0 and "Traceback" in result.stderr


def test_an_unknown_command_or_option_is_refused(tmp_path):
    assert flipside(tmp_path, "show").returncode == 2
    assert flipside(tmp_path, "ranking", "--all").returncode == 2

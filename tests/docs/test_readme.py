"""README.md is short, its table is that of the committed run, and what it tells a reader to type exists."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import typer

from docs.generate import readme
from docs.generate.cli import make_targets
from flipside.cli import app
from flipside.report.tables import ranking
from tests.report.trainings_fixture import pair, repeated, write

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def test_it_is_at_most_150_lines():
    assert len(README.read_text().splitlines()) <= 150


def test_its_table_is_that_of_the_default_run():
    text = README.read_text()
    shown = text[text.index(readme.START) + len(readme.START) : text.index(readme.END)].strip()
    assert shown == readme.readme_table(), "run `python -m docs.generate`"
    found = json.loads((ROOT / "results/default/metrics.json").read_text())
    lines = [line for line in shown.splitlines() if line.startswith("|")][2:]
    rows = [[cell.split("<br>")[0].strip() for cell in line.strip("|").split("|")] for line in lines]
    assert 1 < len(rows) <= 8
    for row in rows:
        values = found[re.match(r"`(\w+)`", row[0])[1]]
        first = "iou_label_free" if "iou_label_free" in values else "iou_val"  # in runs older than the policy
        low, high = values[f"{first}_ci_low"], values[f"{first}_ci_high"]
        assert row[1] == f"{values[first]:.3f} ({low:.3f} to {high:.3f})"
    scores = [float(row[1].split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_after_repetitions_each_number_has_two_intervals_and_the_reader_learns_which_differences_stand(tmp_path,
                                                                                                       monkeypatch):
    shutil.copytree(ROOT / "results/default", tmp_path / "default")
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    rank_by, run = readme.COLUMNS[0], readme.read_run(tmp_path / "default")
    (tmp_path / "default/trainings.json").unlink(missing_ok=True)
    plain = readme.readme_table()
    assert "[" not in plain and "stand" not in plain
    first, second = ranking(run.metrics, rank_by)[:2]
    pairs = [pair(first, second, 0.2, 0.1, 0.3)]
    shifts = {"generators": {1: {first: 0.01}, 2: {first: -0.001}}}
    write(repeated(run.metrics, rank_by, shifts, run.params, pairs=pairs), tmp_path / "default/trainings.json")
    shown = readme.readme_table()
    value = run.metrics[first][rank_by]
    rows = [line for line in shown.splitlines() if line.startswith("| `")]
    assert f"<br>mean {value + 0.003:.3f} [{value - 0.001:.3f} to {value + 0.01:.3f}]" in rows[0].split("|")[2]
    assert rows[0].count("mean ") == len(readme.COLUMNS) and "mean " not in rows[1]  # nothing of it was trained again
    assert f"neighbours in the ranking 1 stands with other patients and other trainings: {first} before" in shown


@pytest.mark.parametrize("file", ["README.md", "docs/getting-started.md"])
def test_the_time_that_a_reader_is_told_is_that_of_the_default_run(file):
    seconds = json.loads((ROOT / "results/default/run.json").read_text())["seconds"]
    assert f"{seconds / 60:.0f} minutes" in (ROOT / file).read_text()


def test_writing_the_table_changes_nothing_else(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text().replace("0.6", "0.7"))
    readme.write(copy)
    before, after = (re.sub(f"{readme.START}.*?{readme.END}", "", text, flags=re.DOTALL)
                     for text in (README.read_text().replace("0.6", "0.7"), copy.read_text()))
    assert before == after and readme.readme_table() in copy.read_text()


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_and_pictures_are_there(file):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text()):
        if not target.startswith("http") and not is_generated(file.parent / target):
            assert (file.parent / target).exists(), f"{file.name} links to {target}"


def is_generated(target):
    from docs.generate.hook import REFERENCE

    return target.resolve().parent == ROOT / "docs/reference" and target.stem in REFERENCE


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_commands_exist(file):
    text = "\n".join(re.findall(r"```.*?```|`[^`]+`", file.read_text(), flags=re.DOTALL))
    text = re.sub(r"\s#\s.*", "", text)  # comments beside a command
    commands = set(typer.main.get_command(app).commands)
    targets = {name for name, _ in make_targets(ROOT / "Makefile")}
    assert set(re.findall(r"(?:^|[`\s])make ([a-z-]+)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"(?:^|`)flipside ([a-z-]+)", text, re.MULTILINE)) <= commands
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), f"{file.name}: python -m {module}"
    for profile in re.findall(r"make profile P=(\w+)", text):
        assert (ROOT / f"profiles/{profile}.yaml").is_file(), f"{file.name}: {profile}"

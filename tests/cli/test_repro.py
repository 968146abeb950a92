"""`flipside repro`: stages side by side, each on its own cores, in an order that DVC's would allow too."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from flipside.cli.repro import cores_of_jobs, in_order, repro, stale_stages
from tests.test_dvc_yaml import dvc, status

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
                                reason="stages run side by side on two cores or more, where the system deals them out")
TOY = '''
import json, os, sys, time
name, *needs = sys.argv[1:]
if name == open("fails").read():
    sys.exit("broken")
begin, content = time.time(), name + "".join(open(need).read() for need in needs)
if name in ("left", "right"):  # each waits for the other to have begun
    open(name + ".begun", "w").close()
    other = {"left": "right", "right": "left"}[name] + ".begun"
    while not os.path.exists(other) and time.time() < begin + 60:
        time.sleep(0.05)
    assert os.path.exists(other)
open(name, "w").write(content)
with open("log", "a") as log:
    log.write(json.dumps([name, sorted(os.sched_getaffinity(0))]) + "\\n")
'''
NEEDS = {"first": [], "left": ["first"], "right": ["first"], "last": ["left", "right"]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.py").write_text(TOY)
    Path("fails").write_text("none")
    stages = {name: {"cmd": f"{sys.executable} toy.py {name} {' '.join(needs)}", "deps": ["toy.py", *needs],
                     "outs": [name]} for name, needs in NEEDS.items()}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc(tmp_path, "init", "--no-scm", "-q")
    return tmp_path


def ran(project):
    """Stages that have run since this was asked last, with their cores."""
    lines = [json.loads(line) for line in (project / "log").read_text().splitlines()]
    (project / "log").write_text("")
    return lines


def test_what_can_run_side_by_side_does_and_the_rest_in_order(project, capfd):
    repro("first", jobs=2)
    assert [name for name, _ in ran(project)] == ["first"]
    repro(jobs=2)
    lines = ran(project)
    cores = dict(lines)
    assert len(lines) == 3 and lines[-1][0] == "last" and cores["left"] and not set(cores["left"]) & set(cores["right"])
    assert (project / "last").read_text() == "lastleftfirstrightfirst" and status(project) == {}
    assert "[left] Running stage 'left'" in capfd.readouterr().out

    # What is up to date is not run again; where a stage fails the others keep what they have made.
    repro(jobs=2)
    assert ran(project) == []
    Path("fails").write_text("last")
    Path("toy.py").write_text(TOY + "# another\n")
    for file in project.glob("*.begun"):
        file.unlink()
    with pytest.raises(RuntimeError, match="stage last failed"):
        repro(jobs=2)
    assert sorted(name for name, _ in ran(project)) == ["first", "left", "right"]
    Path("fails").write_text("none")
    repro(jobs=1)
    assert [name for name, _ in ran(project)] == ["last"]


def test_the_longest_way_to_the_end_comes_first():
    needs = {"data": set(), "short": {"data"}, "long": {"data"}, "longer": {"long"}, "end": {"short", "longer"}}
    assert in_order(needs) == {
        "data": (4, 1), "short": (2, 2), "long": (3, 2), "longer": (2, 3), "end": (1, 4)}
    assert stale_stages(needs, ["long"]) == {"long", "longer", "end"} and stale_stages(needs, []) == set()


def test_cores_are_dealt_out():
    own = os.sched_getaffinity(0)
    assert cores_of_jobs(1) == [own] and set().union(*cores_of_jobs(2)) == own
    assert len(cores_of_jobs(10_000)) == len(own)

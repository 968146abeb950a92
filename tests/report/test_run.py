"""What the report says of the code that was run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from flipside.report.run import git_revision


def test_an_edited_checkout_is_not_passed_off_as_its_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_revision() == "not a git checkout with a commit"
    Path("params.yaml").write_text("seed: 1\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], check=True)
    assert re.fullmatch("[0-9a-f]{40}", git_revision())
    Path("notes.txt").write_text("shapes nothing")
    assert re.fullmatch("[0-9a-f]{40}", git_revision())
    Path("flipside").mkdir()
    Path("flipside/new.py").touch()
    assert git_revision().endswith(", with edits that are not committed")
    Path("flipside/new.py").unlink()
    assert re.fullmatch("[0-9a-f]{40}", git_revision())
    Path("params.yaml").write_text("seed: 2\n")
    assert git_revision().endswith(", with edits that are not committed")

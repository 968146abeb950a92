"""What the checkout says against dvc.lock: parameters, code, commands and committed results.

`dvc status` alone is no gate for a fresh clone: it lists all data there as missing. Data that the checkout doesn't
hold are left out here, and the hashes that dvc.lock itself records are compared with each other instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LOCK = Path("dvc.lock")
DVC = (sys.executable, "-m", "dvc")


def stale_stages(target: str | None = None) -> dict[str, list[str]]:
    """{stage: what changed since it ran}, for the project in the working folder; empty when dvc.lock is fresh.

    With a target, of it and the stages that it rests on.

    A folder that holds several stages' outputs (data/masks) has a hash of its own, which dvc.lock can't confirm
    without the data; an output that another stage reads under its own path can.
    """
    stale: dict[str, list[str]] = {}
    options = [] if target is None else ["--with-deps", target]
    changes = list(changes_in(json.loads(run(*DVC, "status", "--json", *options))))
    ignored = _ignored_by_git({path for _, path, state in changes if state == "deleted"})
    for stage, path, state in changes:
        if state != "not in cache" and not (state == "deleted" and path in ignored):
            stale.setdefault(stage, []).append(f"{path} {state}")
    for stage, reason in _contradictions():
        stale.setdefault(stage, []).append(reason)
    return stale


def changes_in(status: dict[str, list[Any]]) -> Iterator[tuple[str, str, str]]:
    """(stage, path or parameter, state) of every entry of `dvc status --json`."""
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command"
                yield stage, entry.removeprefix("changed "), "changed"
                continue
            for paths in entry.values():
                for path, state in paths.items():
                    inner = state.items() if isinstance(state, dict) else [(path, state)]
                    for name, one in inner:
                        yield stage, f"parameter {name}" if isinstance(state, dict) else name, one


def _ignored_by_git(paths: set[str]) -> set[str]:
    """Those of the paths that git ignores: DVC's data, which a fresh clone can't have."""
    if not paths:
        return set()
    result = subprocess.run(["git", "check-ignore", "-z", "--stdin"], input="\0".join(sorted(paths)),
                            capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        raise RuntimeError(f"git check-ignore: {result.stderr.strip()}")
    return set(result.stdout.split("\0")) - {""}


def _contradictions() -> list[tuple[str, str]]:
    """(stage, reason) where a stage read another version of a file than dvc.lock says was written."""
    recorded = yaml.safe_load(LOCK.read_text())["stages"] if LOCK.is_file() else {}
    if not list(_mismatches(recorded)):
        return []
    current = run(*DVC, "stage", "list", "--name-only").split()  # entries of removed stages stay in dvc.lock
    return list(_mismatches({name: recorded[name] for name in current if name in recorded}))


def _mismatches(stages: dict[str, Any]) -> Iterator[tuple[str, str]]:
    outputs = [(out["path"], name, out["md5"]) for name, stage in stages.items() for out in stage.get("outs", [])]
    for name, stage in stages.items():
        read = {dependency["path"]: dependency["md5"] for dependency in stage.get("deps", [])}
        yield from ((name, f"{path} is not the one that {writer} wrote last") for path, writer, md5 in outputs
                    if read.get(path, md5) != md5)


def run(*command: str) -> str:
    """Standard output of a command; RuntimeError with its own message where it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        shown = " ".join(command[2:] if command[:2] == DVC[:2] else command)
        raise RuntimeError(f"`{shown}` failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout

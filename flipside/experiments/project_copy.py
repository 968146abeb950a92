"""A copy of the project in .scratch, in which DVC runs with other parameters: it shares the project's cache, and
writes nothing else of it.

What was finished in a copy is not run again, and a training that was killed goes on, as long as the project's code,
parameters and dvc.lock are those that the copy was made of; else it is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flipside.core.files import content_digest, file_digest

DVC = (sys.executable, "-m", "dvc")
COPIED = (".dvc", ".dvcignore", "datasets.yaml", "dvc.lock", "dvc.yaml", "flipside", "params.yaml", "reports", "stages")
IGNORED = ("reports/trainings.json",)  # no stage before `report` reads it
SETTINGS = "[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {cache}\n"
MADE_OF = ".made_of"  # in a copy, written last: the fingerprint of the files that it was made of


class BusyError(RuntimeError):
    """Another process works in the copy."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
    """One process at a time; gives the lock, for a child that may outlive this process. Raises BusyError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process is at work in {folder} (or one that was killed has left a training "
                            "behind that still runs): wait until it has ended") from None
        yield handle.fileno()


def open_copy(folder: Path, target: str) -> None:
    """The copy with all outputs that a stage rests on, as dvc.lock has them; one of the same project is kept.

    Raises RuntimeError with DVC's message where the cache lacks an output.
    """
    files = _files()
    fingerprint = content_digest({file: file_digest(file) for file in files})
    mark = folder / MADE_OF
    if mark.is_file() and mark.read_text() == fingerprint:
        print(f"goes on in {folder}", flush=True)
        return
    shutil.rmtree(folder, ignore_errors=True)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file)
    cache = subprocess.run([*DVC, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / ".dvc/config.local").write_text(SETTINGS.format(cache=Path(cache).resolve()))
    result = subprocess.run([*DVC, "checkout", "--quiet", "--with-deps", target], cwd=folder, capture_output=True,
                            text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"DVC's cache lacks outputs of the run: {result.stderr.strip()}\nRun `dvc repro` (or `dvc "
                           "pull`) first")
    mark.write_text(fingerprint)


def write_values(text: str, values: dict[str, Any], path: Path) -> None:
    """The text of a params.yaml with other values under dotted keys, all else as it stands."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 120
    content = editor.load(text)
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = content
        for part in parents:
            node = node[part]
        node[leaf] = value
    with open(path, "w") as handle:
        editor.dump(content, handle)


def environment() -> dict[str, str]:
    """For DVC: the stages' `python` is the one that runs this."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def reproduce(folder: Path, target: str, lock: int) -> None:
    """`flipside repro` of a stage in the copy, its output going through; RuntimeError where it fails.

    Raw scans that DVC doesn't hold are not in the copy; what was made of them is.
    """
    result = subprocess.run([sys.executable, "-m", "flipside", "repro", "--allow-missing", target], cwd=folder,
                            env=environment(), check=False, pass_fds=[lock])
    if result.returncode:
        raise RuntimeError(f"`flipside repro {target}` in {folder} failed; its own message stands above. The same "
                           "command goes on where this one stopped")


def _files() -> list[str]:
    """The project's files that DVC's stages may read, but for artifacts: all that git tracks or doesn't ignore."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *COPIED],
                            capture_output=True, text=True, check=False)
    if listed.returncode:
        raise RuntimeError(f"git ls-files: {listed.stderr.strip()}; a copy of the project takes what git lists")
    return sorted(file for file in set(listed.stdout.split("\0")) - {"", *IGNORED} if Path(file).is_file())

"""Functions and stages in processes of their own, which may hang, crash or be killed without taking the tests along.

They are forked from a server that has imported the stages once: a fresh interpreter would spend seconds on that for
each of the hundred processes. Nothing that a test did in its own process reaches them.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# What takes long to import, much of it in the middle of a stage's work.
LIBRARIES = ("torch", "torch._dynamo", "torchvision.transforms.v2", "torchmetrics.image", "pytorch_fid.fid_score",
             "captum.attr", "pandas", "nibabel", "pydicom", "scipy.stats", "scipy.ndimage", "skimage.metrics",
             "sklearn.metrics", "matplotlib.figure", "safetensors.torch", "pydantic", "jinja2", "yaml", "tqdm")
PRELOADED = [*LIBRARIES, "dvc.repo", *(f"stages.{file.stem}" for file in sorted((ROOT / "stages").glob("*.py")))]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (negative: the signal that killed it) and all that it printed."""

    status: int
    output: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


@functools.cache
def server() -> ForkServerContext:
    """The context whose processes are forked from one that has the stages imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # what the server imports from; Python 3.11 doesn't hand sys.path on
    try:
        context.Process(target=int).start()  # any process: the first one starts the server
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


def run_apart(function: Callable[..., Any], *arguments: Any, timeout: float = 120, kill_after: float | None = None
              ) -> Ended:
    """Call a function of an importable module in a process of its own and wait for its end.

    After `kill_after` seconds it gets SIGKILL. Raises TimeoutError with the last lines that it printed.
    """
    with tempfile.NamedTemporaryFile("r") as log:
        process = server().Process(target=_child, args=(log.name, function, arguments), daemon=True)
        process.start()
        process.join(timeout if kill_after is None else kill_after)
        hung = process.is_alive() and kill_after is None
        process.kill()
        process.join()
        output = log.read()
    if hung:
        raise TimeoutError(f"{function.__name__}{arguments} hung for {timeout} s; it last said:\n"
                           + "\n".join(output.splitlines()[-5:]))
    return Ended(process.exitcode, output)


def _child(log: str, function: Callable[..., Any], arguments: tuple) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    sys.stdout.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    call_and_leave(function, *arguments)


def call_and_leave(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function and end this process, with its exit status; what the process was forked from isn't torn down."""
    try:
        function(*arguments)
    except SystemExit as leave:
        _leave(leave.code if isinstance(leave.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        _leave(1)
    _leave(0)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

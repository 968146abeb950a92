"""A worker that is killed as it writes its second scan, the first time; the workers of a cluster import it."""

import os
import signal
from pathlib import Path

from flipside.prediction import outputs, parts

open_worker = parts.open_worker


def open_deadly(notes: Path, request):
    """In place of `flipside.prediction.parts.open_worker`. notes: a folder, in which each worker leaves a file."""
    original, calls = outputs.draw_thumbnail, 0
    (notes / str(os.getpid())).touch(exist_ok=False)

    def draw(*arguments):
        nonlocal calls
        calls += 1
        if calls == 2 and not (notes / "killed").exists():
            (notes / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    outputs.draw_thumbnail = draw
    return open_worker(request)

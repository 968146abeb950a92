"""A `python` for the stages that DVC runs, forked from a process that has torch and the like loaded.

A fresh interpreter spends four seconds on importing them, for each of the DAG's many stages, and ten where all methods
are loaded. The project's own code is imported anew by each stage, from where it runs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.apart import LIBRARIES, ROOT, call_and_leave

COMMAND = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] != ["-m"]:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("{address}")
    call = {{"words": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(connection, [json.dumps(call).encode()], [0, 1, 2])
    status = int(connection.recv(16))
sys.exit(status if status >= 0 else 128 - status)
"""


@contextlib.contextmanager
def quick_python() -> Iterator[Path]:
    """A folder to put first in PATH: its `python -m module ...` starts in a blink, one process at a time."""
    with tempfile.TemporaryDirectory() as folder:
        address, command = Path(folder) / "socket", Path(folder) / "bin/python"
        command.parent.mkdir()
        command.write_text(COMMAND.format(python=sys.executable, address=address))
        command.chmod(0o755)
        server = subprocess.Popen([sys.executable, "-m", "tests.quick_python", str(address)], cwd=ROOT,
                                  stdout=subprocess.PIPE)
        try:
            assert server.stdout.readline() == b"ready\n"
            yield command.parent
        finally:
            server.kill()
            server.communicate()


def serve(address: str) -> None:
    """Load the libraries, then fork a process for each call."""
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.dont_write_bytecode, sys.pycache_prefix = False, f"{address}.bytecode"  # the project's own is compiled once
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
                process = os.fork()
                if process == 0:
                    break
                for file in files:
                    os.close(file)
                status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                connection.sendall(str(status).encode())
    call = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.path[0] = call["folder"]
    sys.argv = call["words"]
    call_and_leave(runpy.run_module, call["words"][0], None, "__main__", True)


if __name__ == "__main__":
    serve(sys.argv[1])

"""A stage's work in independent parts: in this process by default, on Dask where `runtime.cluster` says so.

The result of each part is a file in `.scratch/<stage>/<fingerprint>/`, which gets its name when it is whole. Parts that
are there aren't done again, and results are read in the order of the parts: whoever did them, and whenever, the bytes
of what becomes of them are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flipside.core import paths
from flipside.core.files import content_digest, file_digest, naming_a_full_disk
from flipside.core.progress import Ticker

if TYPE_CHECKING:  # imports torch, which those that only read scans do without
    from flipside.core.runtime import RuntimeParams

Result = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays, and a record that JSON can hold
Opener = Callable[[], Callable[[Any], Result]]

EXTRA = "pip install 'flipside[cluster]'"
# Code that no part runs: who explains opens no such file.
UNSEEN = ("artifacts/truth.py", "cohort/extracted.py", "metrics/families/lesion_detection.py",
          "metrics/families/lesion_volumes.py")


@dataclass
class Effort:
    """What parts that compute on a device took together."""

    seconds: float = 0.0
    peak_memory_gb: float | None = None  # of the process with the greatest
    devices: list[str] = field(default_factory=list)  # of all that took part

    def add(self, record: dict[str, Any]) -> None:
        """That of a part, whose record has `seconds`, `peak_memory_gb` and `device`."""
        self.seconds += record["seconds"]
        self.peak_memory_gb = max((peak for peak in (self.peak_memory_gb, record["peak_memory_gb"])
                                   if peak is not None), default=None)
        if record["device"] not in self.devices:
            self.devices.append(record["device"])

    @property
    def device(self) -> str:
        """In words."""
        return "; ".join(self.devices)


class Work:
    """Parts, and how they are done."""

    def __init__(self, stage: str, fingerprint_of: Any, opener: Opener, parts: Sequence[Any]):
        """opener: called once in each process, which loads there what all parts need; it gives the function of a part.
        It and the parts are pickled: it is a class or function of a module, or a functools.partial of one, and no array
        is among its arguments.
        fingerprint_of: all that the results depend on, but for the package's code, which always counts."""
        self.stage, self.opener, self.parts = stage, opener, parts
        fingerprint = content_digest([fingerprint_of, code_digest()])[:16]
        self.folder = Path(paths.SCRATCH, stage.replace("/", "_"), fingerprint)

    @functools.cached_property
    def opened(self) -> Callable[[Any], Result]:
        """What `opener` gives, in this process."""
        return self.opener()

    def run(self, runtime: RuntimeParams) -> Iterator[Result]:
        """Do the parts that aren't there; the results of all, in order, of which one is in memory at a time.

        Raises what a part raises, and RuntimeError where a cluster can't be had or a part ends its workers."""
        files = [self.file(number) for number in range(len(self.parts))]
        left = [number for number, file in enumerate(files) if not file.is_file()]
        self._say_what_is_there(len(left))
        done = len(files) - len(left)
        ticker = Ticker(self.stage, len(files), done)
        if runtime.cluster != "none" and left:
            todo = [(files[number], self.parts[number]) for number in left]
            for _ in _on_cluster(runtime, self.opener, todo):
                done += 1
                ticker.tick(done)
        for number, file in enumerate(files):
            if not file.is_file():
                make_part(file, self.opened, self.parts[number])
                done += 1
                ticker.tick(done)
            yield _read(file)

    def run_share(self, share: tuple[int, int]) -> None:
        """Do every n-th part from the i-th one on, of share (i,n), in this process. A run without a share goes on."""
        mine = range(share[0] - 1, len(self.parts), share[1])
        left = [number for number in mine if not self.file(number).is_file()]
        ticker = Ticker(self.stage, len(mine), len(mine) - len(left))
        for done, number in enumerate(left, len(mine) - len(left) + 1):
            make_part(self.file(number), self.opened, self.parts[number])
            ticker.tick(done)
        print(f"{self.stage}: share {share[0]}/{share[1]} is done, {len(mine)} of {len(self.parts)} parts. When all "
              "are, run it without --part")

    def file(self, number: int) -> Path:
        """Of a part's result."""
        return self.folder / f"{number}.safetensors"

    def clear(self) -> None:
        """Delete the results, and those of other parameters and data."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _say_what_is_there(self, left: int) -> None:
        if left < len(self.parts):
            print(f"resuming {self.stage}: {len(self.parts) - left} of {len(self.parts)} parts are in {self.folder}")
        elif any(self.folder.parent.glob("*/[0-9]*.safetensors")):
            print(f"{self.stage}: parameters, data or code changed since the unfinished run; starting afresh")


def add_share(parser: argparse.ArgumentParser) -> None:
    """The option `--part` of a stage."""
    parser.add_argument("--part", type=parse_share, metavar="I/N", help="do the I-th of N shares of the work and "
                        "nothing else, as one task of an array job; run without it afterwards")


def parse_share(text: str) -> tuple[int, int]:
    """(I,N) of "I/N"; argparse.ArgumentTypeError says what else was expected."""
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}, expected I/N with I from 1 to N, such as 2/8")
    return int(first), int(count)


def make_part(file: Path, work: Callable[[Any], Result], part: Any) -> None:
    """Do a part and write its result, whole or not at all, even if others do the same one. Raises DiskFullError."""
    arrays, record = work(part)
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()},
                   {"told": json.dumps([[*arrays], record], default=lambda number: number.item())})  # numpy's numbers
    temporary = file.with_name(f".partial.{uuid.uuid4().hex}.{file.name}")
    try:
        with naming_a_full_disk(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path) -> Result:
    try:
        with safe_open(file, framework="numpy") as content:
            names, record = json.loads(content.metadata()["told"])
            return {name: content.get_tensor(name) for name in names}, record
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it and run again") from None


@functools.cache
def code_digest() -> str:
    """Of the package's code when this process first asked: results of other code are not gone on with."""
    root = Path(__file__).parents[1]
    files = {file.relative_to(root).as_posix(): file for file in sorted(root.rglob("*.py"))}
    return content_digest([[name, file_digest(file)] for name, file in files.items() if name not in UNSEEN])


# On Dask, which is imported where it is asked for.


def _on_cluster(runtime: RuntimeParams, opener: Opener, todo: Sequence[tuple[Path, Any]]) -> Iterator[None]:
    """Do parts, of which the files are given, on the workers; yields after each. A worker that dies is replaced, and
    its parts are done by others."""
    with _connect(runtime) as client:
        from distributed import KilledWorker, as_completed

        do = functools.partial(_on_worker, Path.cwd(), code_digest(), opener)
        futures = client.map(do, *zip(*todo, strict=True), pure=False)
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except KilledWorker as error:
            raise RuntimeError(f"a part ended its workers, the last one {error.last_worker.address}: does it need more "
                               f"memory than runtime.worker_memory ({runtime.worker_memory})? What was done is kept"
                               ) from None


_opened: dict[Path, Callable[[Any], Result]] = {}  # of a worker: what it works with, by the results' folder


def _on_worker(root: Path, code: str, opener: Opener, file: Path, part: Any) -> None:
    if code != code_digest():
        raise RuntimeError("a worker has other code than the stage: start the workers again, with the same version")
    os.chdir(root)
    if file.is_file():  # done by a worker that died before it could say so
        return
    folder = (root / file).parent
    if folder not in _opened:
        _opened.clear()
        _opened[folder] = opener()
    make_part(file, _opened[folder], part)


@contextlib.contextmanager
def _connect(runtime: RuntimeParams) -> Iterator[Any]:
    """A client of the cluster that `runtime` names, whose workers have one thread each. A cluster that is started here
    ends with the block."""
    try:
        from distributed import Client

        cluster = runtime.cluster if "://" in runtime.cluster else _start_cluster(runtime)
    except ImportError as error:
        raise RuntimeError(f"runtime.cluster is {runtime.cluster!r}, which needs {error.name}: {EXTRA}") from None
    with contextlib.nullcontext() if isinstance(cluster, str) else cluster, Client(cluster) as client:
        print(f"work is done on {runtime.cluster}; waiting for a worker", flush=True)
        client.wait_for_workers(1)
        if any(threads != 1 for threads in client.nthreads().values()):
            raise RuntimeError(f"workers of {runtime.cluster} have several threads, which would work on one model at "
                               "once: start them with `dask worker --nthreads 1`")
        yield client


def _start_cluster(runtime: RuntimeParams) -> Any:
    """What Dask's own files say (~/.config/dask) holds for what isn't said here, such as a queue or an image."""
    from flipside.core.runtime import available_cores

    memory, workers = runtime.worker_memory, runtime.workers or available_cores()
    if runtime.cluster == "local":
        from distributed import LocalCluster

        return LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=memory, dashboard_address=None)
    if runtime.cluster == "slurm":
        from dask_jobqueue import SLURMCluster

        return SLURMCluster(n_workers=workers, cores=1, processes=1, memory=memory)
    from dask_kubernetes.operator import KubeCluster

    return KubeCluster(name="flipside", n_workers=workers, resources={"limits": {"memory": memory}},
                       worker_command=["dask", "worker", "--nthreads", "1", "--memory-limit", memory])

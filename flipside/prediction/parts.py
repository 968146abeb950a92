"""What is to be predicted how, in words that another process understands, and how Dask's workers do it in parts.

A worker loads the models once, and works on the scans of a part as `flipside predict` does on all. What is done shows
in the folder of the predictions alone, so the part of a worker that dies is gone on with by others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from flipside.core import progress
from flipside.core.parallel import Result, Work
from flipside.core.params import PARAMS_FILE, ParamsError, load_section
from flipside.core.runtime import RuntimeParams
from flipside.prediction.finding import NewScan
from flipside.prediction.outputs import ROW, SHARED
from flipside.prediction.predict import predict
from flipside.prediction.trained import Explainer, TrainedRun


@dataclass(frozen=True)
class Request:
    """How `flipside predict` is asked to do it."""

    run: Path
    method: str
    out: Path
    dicom: bool
    anonymise: bool
    runtime: RuntimeParams


class Predictor:
    """The models, loaded once, and what they do to scans."""

    def __init__(self, request: Request):
        self.out, self.run = request.out, TrainedRun.open(request.run)
        self.cut = self.run.threshold(request.method)
        self.more = None
        if request.dicom:
            from flipside.prediction.dicom_objects import dicom_writer

            self.more = dicom_writer(self.run, request.method, request.anonymise)
        self.explainer = Explainer(self.run, request.method, request.runtime.of_worker())

    def __call__(self, scans: Sequence[NewScan]) -> list[dict[str, Any]]:
        """Do those that aren't done yet; the rows of those that failed."""
        return predict(scans, self.run, self.explainer, self.cut, self.out, self.more)


def runtime_of(run: Path, cluster: str) -> RuntimeParams:
    """Section `runtime` of a run, but for where the work is done: `cluster` is what `runtime.cluster` may be.

    Raises ParamsError.
    """
    params = load_section("runtime", RuntimeParams, run / PARAMS_FILE)
    try:
        return RuntimeParams(**params.model_dump() | {"cluster": cluster})
    except pydantic.ValidationError:
        raise ParamsError(f"--cluster is {cluster!r}, expected none, local, slurm, kubernetes or the address of a Dask "
                          "scheduler such as tcp://host:8786") from None


def predict_on_cluster(scans: Sequence[NewScan], request: Request, batch_size: int) -> None:
    """Have workers do what isn't done yet, as many scans at a time as a batch has slices. Scans that fail are left.

    Raises RuntimeError where a cluster can't be had or a part ends its workers.
    """
    left = [scan for scan in scans if not (request.out / scan.name / ROW).is_file()]
    work = Work("predict", None, functools.partial(open_worker, request),
                [left[start : start + batch_size] for start in range(0, len(left), batch_size)])
    work.folder = request.out / SHARED / uuid.uuid4().hex  # new to all workers, and not where the command is run
    work.clear()
    for _ in work.run(request.runtime):
        pass


def open_worker(request: Request) -> Callable[[Sequence[NewScan]], Result]:
    """In a worker's process: what does a part. Whoever gave it the work does the talking."""
    progress.hidden = True
    predictor = Predictor(request)

    def work(scans: Sequence[NewScan]) -> Result:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            predictor(scans)
        return {}, {}

    return work

"""Many new scans, one after the other: read, explained in batches that scans share, written and forgotten."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from flipside.core.files import DiskFullError, atomic_file, read_json, write_json
from flipside.core.params import ParamsError
from flipside.core.progress import Ticker
from flipside.masks.extraction.thresholds import Cut
from flipside.prediction.finding import NewScan
from flipside.prediction.fingerprint import Fingerprint
from flipside.prediction.outputs import ROW, MoreFiles, finished, write_prediction
from flipside.prediction.prepared import PreparedScan, prepare
from flipside.prediction.trained import Explained, Explainer, TrainedRun

SETTINGS, TABLE = "settings.json", "predictions.csv"
COLUMNS = ("scan", "file", "status", "probability", "called", "lesion_mm3", "largest_component_mm3", "lesion_px",
           "largest_component_px", "slices", "slices_called", "slices_marked", "worst_z", "warnings")

Item = TypeVar("Item")
Result = TypeVar("Result")


def open_output(out: Path, settings: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Make the folder, or go on in one that was made with the same settings.

    Raises ParamsError for a folder with predictions without `resume` or `overwrite`, for one that holds something else,
    and where the predictions that are there were made otherwise. `overwrite` removes predictions and nothing else.
    """
    before = out / SETTINGS
    if before.is_file() and overwrite:
        for folder in finished(out):
            shutil.rmtree(folder)
        for name in (SETTINGS, TABLE, "index.html"):
            (out / name).unlink(missing_ok=True)
    elif before.is_file() and not resume:
        raise ParamsError(f"{out} holds predictions: go on with --resume, make them anew with --overwrite, or name "
                          "another folder")
    elif before.is_file():
        there, now = read_json(before), _as_stored(settings)
        other = sorted(name for name in {*there, *now} if there.get(name) != now.get(name))
        if other:
            raise ParamsError(f"{out} holds predictions that were made with another {other[0]}: "
                              f"{there.get(other[0])!r}, now {now.get(other[0])!r}. Use --overwrite or another folder")
        return
    elif out.is_dir() and any(not file.name.startswith(".") for file in out.iterdir()) and not before.is_file():
        raise ParamsError(f"{out} isn't empty and holds no predictions: name another folder")
    temporary = out / f".{uuid.uuid4().hex}.{SETTINGS}"  # its own, as the tasks of an array job begin together
    write_json(temporary, settings)
    os.replace(temporary, before)


def _as_stored(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples as lists."""
    return json.loads(json.dumps(settings, default=str))


def predict(scans: Sequence[NewScan], run: TrainedRun, explainer: Explainer, cut: Cut, out: Path,
            more: MoreFiles | None = None) -> list[dict[str, Any]]:
    """Explain the scans that aren't done in `out` yet. A scan that can't be read or explained gets a row that says why,
    and the others go on; returned are these rows.

    However many scans there are, only those whose slices are in work are in memory: one is read ahead, one is written
    behind.
    """
    failed: list[dict[str, Any]] = []
    todo = [scan for scan in scans if not _is_done(scan, out, failed)]
    fingerprint = Fingerprint.read(run)
    done = len(scans) - len(todo)
    ticker = Ticker("predict", total=max(len(scans), 1), initial=done)

    def read(new: NewScan) -> PreparedScan | dict[str, Any]:
        try:
            return prepare(new, run, fingerprint)
        except DiskFullError:
            raise
        except (ValueError, OSError) as error:  # all that readers and preparation raise
            return _failure(new, error, run)

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future | None = None
        for prepared in _explained(_ahead(todo, read, reader), explainer, failed):
            if written is not None:
                written.result()  # at most one scan waits to be written
            written = writer.submit(write_prediction, out, prepared, run, cut, more)
            done += 1
            ticker.tick(done)
        if written is not None:
            written.result()
    if done < len(scans):
        ticker.tick(len(scans))
    return failed


def _is_done(scan: NewScan, out: Path, failed: list[dict[str, Any]]) -> bool:
    """Whether a scan needs nothing more; one whose name another scan has taken in `out` is a failure."""
    file = out / scan.name / ROW
    if not file.is_file():
        return False
    if read_json(file)["source"] != scan.source:
        failed.append(_row(scan, f"another scan in {out} has the name {scan.name}: use another folder"))
    return True


def _failure(new: NewScan, error: Exception, run: TrainedRun) -> dict[str, Any]:
    reason = getattr(error, "reason", None) or str(error)
    file = getattr(error, "file", None)
    told = f"{Path(file).name}: {reason}" if file and Path(file).name != Path(new.file).name else reason
    return _row(new, new.without_names(told, run.extract.patient_salt))


def _row(new: NewScan, reason: str) -> dict[str, Any]:
    return {"scan": new.name, "file": new.file, "status": f"failed: {reason}"}


def _ahead(items: Sequence[Item], work: Callable[[Item], Result], pool: ThreadPoolExecutor) -> Iterator[Result]:
    """The results in order; while one is in use, the next is being made."""
    coming: deque[Future] = deque()
    for item in items:
        coming.append(pool.submit(work, item))
        if len(coming) > 1:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _explained(scans: Iterator[PreparedScan | dict[str, Any]], explainer: Explainer, failed: list[dict[str, Any]]
               ) -> Iterator[PreparedScan]:
    """Scans in their order as soon as all their slices are explained; a batch takes slices of as many as it needs."""
    waiting: deque[PreparedScan] = deque()
    for scan in scans:
        if isinstance(scan, dict):
            failed.append(scan)
            continue
        waiting.append(scan)
        while sum(one.left for one in waiting) >= explainer.batch_size:
            _explain_batch(waiting, explainer)
            while waiting and waiting[0].is_explained:
                yield waiting.popleft()
    while any(one.left for one in waiting):
        _explain_batch(waiting, explainer)
    yield from waiting


def _explain_batch(waiting: deque[PreparedScan], explainer: Explainer) -> None:
    """The next slices of the waiting scans, as many as a batch holds; their answers go to their scans."""
    parts: list[tuple[PreparedScan, slice]] = []
    room = explainer.batch_size
    for scan in waiting:
        count = min(room, scan.left)
        if count:
            parts.append((scan, slice(scan.taken, scan.taken + count)))
            scan.taken, room = scan.taken + count, room - count
    answer = explainer(*(np.concatenate([getattr(scan, name)[part] for scan, part in parts])
                         for name in ("images", "organ", "z")))
    start = 0
    for scan, part in parts:
        here = slice(start, start + part.stop - part.start)
        scan.answers.append(Explained(answer.probability[here], answer.attribution[here],
                                      None if answer.counterfactual is None else answer.counterfactual[here]))
        start = here.stop


def write_table(out: Path, failed: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """predictions.csv: a row for each scan in `out`, the highest probability first, then those that failed."""
    rows = [read_json(folder / ROW)["row"] for folder in finished(out)]
    rows.sort(key=lambda row: (-row["probability"], row["scan"]))
    table = pd.DataFrame([*rows, *failed]).reindex(columns=[*COLUMNS])
    with atomic_file(out / TABLE) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    return table

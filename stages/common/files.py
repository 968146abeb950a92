"""Whole files or none: a killed stage never leaves a half-written artifact under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place (and whatever stood there) only when the block succeeds."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A temporary file name beside `path` (same suffix) that is renamed to it only when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial.{path.name}")
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def write_json(path: Path | str, content: Any) -> None:
    """JSON with sorted keys, written whole. NaN and infinity are refused: DVC can't compare them."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False, default=str) + "\n")


def write_metrics(path: Path | str, metrics: dict[str, Any]) -> None:
    """A metrics file for DVC: nested snake_case keys without dots, finite floats or integers at the leaves."""
    _check_metrics(metrics, str(path))
    write_json(path, metrics)


def _check_metrics(node: dict[str, Any], where: str) -> None:
    for key, value in node.items():
        if not key.replace("_", "a").isalnum() or key != key.lower():
            raise ValueError(f"{where}: metric name {key!r} must be snake_case without dots")
        if isinstance(value, dict):
            _check_metrics(value, f"{where}/{key}")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{where}: metric {key!r} is {value!r}, expected a finite number")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


def file_digest(path: Path | str) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_digest(content: Any) -> str:
    """sha256 of anything that JSON can hold (keys sorted), hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

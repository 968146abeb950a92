"""Whole files or none: a killed stage never leaves a half-written artifact under its final name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota used up, larger than the system allows


class DiskFullError(OSError):
    """The disk has no space left for what was being written; the message names it."""


@contextlib.contextmanager
def naming_a_full_disk(path: Path | str) -> Iterator[None]:
    """A write that fails for want of space becomes a DiskFullError that names `path` and what to do."""
    path = Path(path)
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        short_write = error.errno is None and " requested and " in str(error)  # numpy's, which has no errno
        if error.errno not in NO_SPACE and not short_write:
            raise
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(folder).free / 1e6
        raise DiskFullError(
            f"{path} can't be written, the disk is full ({error.strerror or error}; {folder} has {free:.1f} MB left). "
            "Nothing half-written is kept: free some space and run again") from error


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place (and whatever stood there) only when the block succeeds.

    Killed at any moment, it leaves under `path` the old folder, nothing, or the new one. Raises DiskFullError.
    """
    path = Path(path)
    temporary, old = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old.partial")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming_a_full_disk(path):
            temporary.mkdir(parents=True)
            yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.is_dir():
        os.replace(path, old)  # deleting takes time: what is deleted must not bear the name any more
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A temporary file name beside `path` (same suffix) that is renamed to it only when the block succeeds.

    Raises DiskFullError.
    """
    path = Path(path)
    temporary = path.with_name(f".partial.{path.name}")
    try:
        with naming_a_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def new_memmap(path: Path | str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """A .npy file of zeros, mapped for writing, all of it allocated now.

    On a full disk the system kills a process that writes to a mapping (SIGBUS); so OSError is raised here instead.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return array


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


def folder_digest(path: Path | str) -> str:
    """sha256 of the names and bytes of all files in a folder, hexadecimal."""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file())
    return content_digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def content_digest(content: Any) -> str:
    """sha256 of anything that JSON can hold (keys sorted), hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

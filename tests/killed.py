"""Runs that are killed at a chosen call of a function, as Ctrl-C would do it there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest


@contextlib.contextmanager
def dies_at(call: int, owner: Any, name: str) -> Iterator[None]:
    """What runs in this block must die at the `call`-th call of `owner.name`, counted from 1, instead of it."""
    calls, original = 0, getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with mock.patch.object(owner, name, counted), pytest.raises(KeyboardInterrupt):
        yield

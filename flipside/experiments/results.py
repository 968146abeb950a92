"""The experiments that `dvc exp show --json` lists for a commit, and the commit itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def results(shown: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(name, data) of the commit and of its experiments; None where a run hasn't succeeded.

    DVC lists the commit's own metrics for an experiment that failed.
    """
    for baseline in shown:
        yield baseline["name"] or baseline["rev"][:7], baseline["data"]
        for experiment in baseline["experiments"] or []:
            succeeded = (experiment["executor"] or {"state": "success"})["state"] == "success"
            for revision in experiment["revs"]:
                yield (experiment["name"] or revision["rev"][:7],
                       revision["data"] if succeeded and not revision["error"] else None)


def parameters(data: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a run, sections of all its parameter files in one mapping."""
    return {section: values for file in data["params"].values() for section, values in (file.get("data") or {}).items()}


def flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested mappings; a list is one value."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

"""What a reader must know of a method at first sight, beside its name."""

from __future__ import annotations


def is_upper_bound(values: dict[str, float]) -> bool:
    """Whether a method learned from lesion masks: it is shown, but stands in no rank. values: its metrics."""
    return values.get("upper_bound") == 1


def is_from_files(values: dict[str, float]) -> bool:
    """Whether a method's maps were made elsewhere and read from files. values: its metrics."""
    return values.get("from_files") == 1


def badge(method: str, values: dict[str, float], controls: list[str], form: str) -> str:
    """The badges of a method in a text, put into `form`, such as " ({})"; empty for a method without any."""
    told = {"control": method in controls, "upper bound": is_upper_bound(values), "files": is_from_files(values)}
    names = ", ".join(name for name, holds in told.items() if holds)
    return form.format(names) if names else ""

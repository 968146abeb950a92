"""Markdown tables for the site's generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int | None = None) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---:" if numbers_from is not None and column >= numbers_from else "---" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def cell(text: str) -> str:
    """Prose for a table's cell: one line, with pipes and angle brackets escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Text set as code in a table's cell."""
    return f"`{text}`".replace("|", "\\|")


def as_yaml(value: Any) -> str:
    """A value as params.yaml would have it, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")

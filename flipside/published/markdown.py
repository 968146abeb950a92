"""Markdown that the commands print."""

from __future__ import annotations


def markdown_rows(rows: list[list[str]]) -> str:
    """A table of rows of cells, the first of which is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])

"""TACE's table 1."""

from __future__ import annotations


def generator_table() -> None:
    """Print TACE's table 1: quality of generators.

    Our numbers stand beside the published ones. Draws images from the generators that the run in this folder has
    trained. Writes nothing.
    """
    from flipside.published.generator_table import generator_table as text

    print(text())

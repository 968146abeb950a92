"""TACE's tables 2 and 3."""

from __future__ import annotations

from typing import Annotated

import typer

NUMBERS = (2, 3)


def tace_tables(
    table: Annotated[int | None, typer.Option(
        min=NUMBERS[0], max=NUMBERS[-1], help="Only this one; without it, both.")] = None,
) -> None:
    """Print TACE's tables 2 and 3: success and time.

    Our numbers stand beside the published ones. Reads what the run in this folder left in reports/ and data/.
    Writes nothing.
    """
    from flipside.published.tace_tables import tace_table

    print("\n\n".join(tace_table(number) for number in ((table,) if table else NUMBERS)))

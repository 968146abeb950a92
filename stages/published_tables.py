"""Stage: D, H, A and O of `impact`, `cam` and `gradient` beside the published ones -> reports/impact.md."""

from __future__ import annotations

import argparse

from flipside.core.files import atomic_file
from flipside.core.params import announce, read_params, stage_main, value_at
from flipside.published.impact_table import impact_table


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters.
    strongly_supervised = bool(value_at(read_params(), "strong_supervision"))
    announce("published_tables", strongly_supervised=strongly_supervised)

    # The table.
    text = impact_table(strongly_supervised)

    # Outputs.
    with atomic_file("reports/impact.md") as file:
        file.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    stage_main(main)

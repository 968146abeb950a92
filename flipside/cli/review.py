"""A sheet on which a reader grades counterfactuals by eye, and the table of the grades."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def review(
    methods: Annotated[list[str] | None, typer.Argument(
        help="Methods whose counterfactuals are shown; without any, the best that makes some.")] = None,
    slices: Annotated[int, typer.Option(min=1, help="Abnormal test slices of each method; the thesis COIN-Aligned: "
                                        "136.")] = 136,
    grades: Annotated[list[Path] | None, typer.Option(
        help="Saved grades, once for each reader: print their table instead of writing a page.")] = None,
    key: Annotated[Path, typer.Option(help="Which case is whose: written with the page, read with the grades.")] = Path(
        "reports/review_key.csv"),
) -> None:
    """Write a page on which counterfactuals are graded by eye.

    Writes reports/review.html of the run that stands in data/ and reports/: scan, counterfactual, difference, map and
    mask of each case, and a form. The reader doesn't see whose a counterfactual is; that is in the key. The page saves
    the grades as CSV, and needs no network; printed, it is a form to fill in by hand. It holds images of patients.
    """
    from flipside.cli.review_sheet.grades import grades_table, read_grades, read_key
    from flipside.cli.review_sheet.sheet import PAGE, choose_cases, write_review
    from flipside.core.params import load_section, load_value
    from flipside.report.inputs import read_inputs
    from flipside.report.params import ReportParams

    if grades:
        print(grades_table(read_grades(grades, read_key(key))))
        return
    inputs = read_inputs(load_section("report", ReportParams))
    chosen = choose_cases(inputs, methods or [], slices, load_value("seed", int))
    write_review(inputs, chosen, PAGE, key)
    print(f"{len(chosen)} cases of {', '.join(sorted(set(chosen['method'])))}: {PAGE.resolve()} (in a browser). Keep "
          f"{key} from the reader, and give it with the grades: flipside review --grades FILE")

"""The HTML report: one file, no network, nothing to install."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from flipside.report import tables
from flipside.report.inputs import ReportInputs
from flipside.report.sections import PAGE_SECTIONS
from flipside.report.sections.headline import Headline

PAGE = Path(__file__).with_name("page")  # templates, style and script, all of which end up in the one file
LONGEST_LIST = 100  # rows of a manifest's list that are printed; the file has them all


def render_page(inputs: ReportInputs) -> str:
    """The whole page. The same inputs, packages and git revision give the same text."""
    sections = [section for kind in PAGE_SECTIONS if (section := kind.build(inputs)) is not None]
    return page_environment().get_template("report.html.jinja").render(headline=Headline.build(inputs),
                                                                       sections=sections)


def page_environment() -> jinja2.Environment:
    """The templates of the page, with tests for the two shapes of mappings that are shown compactly."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True,
                                     undefined=jinja2.StrictUndefined, lstrip_blocks=True)
    environment.globals |= {"missing": tables.MISSING, "longest": LONGEST_LIST}
    environment.tests["flat"] = is_flat
    environment.tests["grid"] = lambda value: (
        all(isinstance(row, dict) and row and is_flat(row) for row in value.values())
        and len({tuple(row) for row in value.values()}) == 1)
    return environment


def is_flat(value: dict[str, Any]) -> bool:
    """Whether a mapping holds single values only."""
    return not any(isinstance(inner, dict | list) for inner in value.values())

"""The review sheet: which counterfactuals are shown, in which order, as one page, and the key to whose they are.

A reader doesn't see which method made an image: cases have numbers, their order is random, and the key is another file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from flipside.cli.review_sheet.questions import QUESTIONS
from flipside.core.files import atomic_file
from flipside.report import pictures
from flipside.report.cases import unranked_cases
from flipside.report.inputs import ReportInputs
from flipside.report.shown_cases import Panel

PAGE, KEY = Path("reports/review.html"), Path("reports/review_key.csv")
SIDE = 512  # pixels of a picture's longer side at most
KEY_COLUMNS = ["case", "method", "slice_id"]


class ReviewError(ValueError):
    """A method, key or file of grades that can't be used."""


@dataclass(frozen=True)
class Case:
    """One counterfactual as the reader sees it."""

    number: int
    panels: list[Panel]


def choose_cases(inputs: ReportInputs, methods: Sequence[str], count: int, seed: int) -> pd.DataFrame:
    """The key: case (from 1), method, slice_id; `count` abnormal test slices at even steps, the same for each method.

    Where there are lesion masks, slices whose mask is empty are left out. The order is random by the seed. Without
    methods: that which leads the ranking of those that make counterfactuals. Raises ReviewError for a method that makes
    none.
    """
    makers = [result.name for result in inputs.with_counterfactual()]
    if not makers:
        raise ReviewError("no method of this run makes counterfactuals: there is nothing to review")
    if unknown := [name for name in methods if name not in makers]:
        raise ReviewError(f"{unknown[0]!r} makes no counterfactuals in this run; those that do: {', '.join(makers)}")
    shown = list(dict.fromkeys(methods)) or makers[:1]
    cases = inputs.results[shown[0]].cases
    abnormal = cases[(cases["label"] == 1) & ((cases["lesion_px"] > 0) | (not inputs.has_lesion_masks))]
    slices = [slice_id for _, slice_id in unranked_cases(sorted(abnormal["slice_id"]), count)]
    pairs = [(method, slice_id) for method in shown for slice_id in slices]
    order = np.random.default_rng(seed).permutation(len(pairs))
    return pd.DataFrame([(number, *pairs[place]) for number, place in enumerate(order, start=1)], columns=KEY_COLUMNS)


def show_cases(inputs: ReportInputs, key: pd.DataFrame) -> list[Case]:
    """The key's cases with their pictures side by side: scan, counterfactual, difference, map, and the mask against the
    lesion where that is known."""
    return [Case(number, _panels(inputs, method, slice_id))
            for number, method, slice_id in key[KEY_COLUMNS].itertuples(index=False)]


def _panels(inputs: ReportInputs, method: str, slice_id: str) -> list[Panel]:
    result = inputs.results[method]
    named = pictures.case_pictures(inputs, result, slice_id)
    mask = named.pop(pictures.MASK, None)
    named["map"] = pictures.heat(result.explanations.attribution[result.row_of[slice_id]])
    if mask is not None:
        named[pictures.MASK] = mask
    return [Panel(name, pictures.data_uri(picture, SIDE)) for name, picture in named.items()]


def sheet_name(key: pd.DataFrame) -> str:
    """A short name of the key's content: grades carry it, so that they are not read with another key."""
    return hashlib.sha256(key[KEY_COLUMNS].to_csv(index=False).encode()).hexdigest()[:8]


def write_review(inputs: ReportInputs, key: pd.DataFrame, page: Path, key_file: Path) -> None:
    """The page and the key; the same run and key give the same bytes. The page needs no network."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.get_template("page.html.jinja").render(
        dataset=inputs.parameters["dataset"], sheet=sheet_name(key), cases=show_cases(inputs, key), questions=QUESTIONS,
        masked=inputs.has_lesion_masks)
    with atomic_file(page) as temporary:
        temporary.write_text(text)
    with atomic_file(key_file) as temporary:
        key.to_csv(temporary, index=False)

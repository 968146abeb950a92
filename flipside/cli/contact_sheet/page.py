"""The contact sheet as a picture and as a page of its own."""

from __future__ import annotations

import textwrap
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from flipside.cli.contact_sheet.sheet import ACROSS, ContactSheet, SheetRow
from flipside.core.files import atomic_file
from flipside.report.figures import ACCENT, INK, MUTED, save_figure
from flipside.report.pictures import data_uri

CELL, GAP, CAPTION, TITLE = 128, 8, 26, 26  # pixels: a slice's side, between them, below them, above a row
DPI = 100
LINE = 17  # pixels of a line of text
WRAP = 150  # letters in a line of text
SHOWN_NAME = 20  # letters of a name below a slice; the page has it whole


def write_contact_sheet(sheet: ContactSheet, picture: Path, page: Path) -> None:
    """Both files; the same sheet gives the same bytes."""
    save_figure(picture, draw_contact_sheet(sheet))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.get_template("page.html.jinja").render(sheet=sheet, uri=data_uri, title=row_title)
    with atomic_file(page) as temporary:
        temporary.write_text(text)


def row_title(row: SheetRow) -> str:
    """What stands above a row."""
    return f"{row.part}, {row.kind}: {row.slices} slices of {row.patients} patients"


def draw_contact_sheet(sheet: ContactSheet) -> Figure:
    """Facts and warnings above a row of slices for each part and class."""
    facts = [f"{name}: {text}" for name, text in sheet.facts.items()]
    warnings = [line for text in sheet.warnings for line in textwrap.wrap(f"! {text}", WRAP)]
    rows = [row for row in sheet.rows if row.shown]
    top = 40 + LINE * (len(facts) + len(warnings)) + 8
    step = TITLE + CELL + CAPTION + GAP
    width, height = ACROSS * (CELL + GAP) + GAP, top + step * len(rows) + GAP
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def write(x: float, y: float, text: str, size: float, colour: str) -> None:
        axes.text(x, y, text, fontsize=size, color=colour, va="center", parse_math=False)

    write(GAP, 20, f"Contact sheet of {sheet.dataset}", 13, INK)
    for number, line in enumerate(facts):
        write(GAP, 40 + LINE * (number + 0.5), line, 8.5, INK)
    for number, line in enumerate(warnings, start=len(facts)):
        write(GAP, 40 + LINE * (number + 0.5), line, 8.5, "#b3261e")
    for i, row in enumerate(rows):
        y = top + i * step
        write(GAP, y + TITLE / 2, row_title(row), 9.5, ACCENT)
        for j, shown in enumerate(row.shown):
            x = GAP + j * (CELL + GAP)
            fitted = _fitted(shown.picture)
            canvas[y + TITLE : y + TITLE + CELL, x : x + CELL] = fitted
            write(x, y + TITLE + CELL + 8, _short(shown.name), 6.5, INK)
            write(x, y + TITLE + CELL + 19, shown.size, 6.5, MUTED)
    axes.imshow(canvas, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    return figure


def _fitted(picture: np.ndarray) -> np.ndarray:
    """A picture (h,w,3) in the middle of a grey square of CELL pixels, its aspect kept."""
    scale = CELL / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    square = np.full((CELL, CELL, 3), 225, np.uint8)
    top, left = (CELL - height) // 2, (CELL - width) // 2
    square[top : top + height, left : left + width] = np.asarray(Image.fromarray(picture).resize((width, height), how))
    return square


def _short(name: str) -> str:
    """A long name's end, which tells slices of one scan apart."""
    return name if len(name) <= SHOWN_NAME else f"…{name[-SHOWN_NAME + 1:]}"

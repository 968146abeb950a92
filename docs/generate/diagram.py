"""The pipeline as an SVG, drawn from dvc.yaml."""

from __future__ import annotations

from html import escape

from docs.generate.pipeline import BANDS, BOXES, Box, Stage, arrows

WIDTH, HEIGHT = 208, 84  # of a box, px
STEP_X, STEP_Y = 252, 136  # from one box to the next
LEFT, TOP = 112, 24
BAND = {"Prepare": "#e7f0fb", "Train": "#e8f5ec", "Explain": "#fdf3e1", "Measure": "#f3ebf9"}
LINE, TRUTH, INK = "#475569", "#c2255c", "#1e293b"
COLUMNS, ROWS = (1 + max(getattr(box, axis) for box in BOXES) for axis in ("column", "row"))
LANE = LEFT + COLUMNS * STEP_X - 14  # x of the line that carries the lesion masks down
SIZE = (LANE + 30, TOP + ROWS * STEP_Y + 40)


def svg(stages: list[Stage]) -> str:
    """The whole picture; it brings its own light background, so it is legible on a dark page."""
    found = arrows(stages)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE[0]} {SIZE[1]}" width="{SIZE[0]}" '
        f'height="{SIZE[1]}" font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The pipeline: which stages feed which, and which see the lesion masks</title>", "<defs>",
        arrow_head("slices", LINE), arrow_head("truth", TRUTH),
        "</defs>", f'<rect width="{SIZE[0]}" height="{SIZE[1]}" rx="10" fill="#ffffff"/>',
        *(band(row, name) for row, name in enumerate(BANDS)),
        *(line(BOXES[source], BOXES[target]) for source, target in sorted(found.slices)),
        *(truth_line(BOXES[source], BOXES[target]) for source, target in sorted(found.truth)),
        *(drawn(box) for box in BOXES), legend(), "</svg>", ""])


def arrow_head(name: str, colour: str) -> str:
    """The end of an arrow, to be referred to by name."""
    return (f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0 0L8 4L0 8Z" fill="{colour}"/></marker>')


def corner(box: Box) -> tuple[int, int]:
    """A box's upper left corner."""
    return LEFT + box.column * STEP_X, TOP + box.row * STEP_Y


def drawn(box: Box) -> str:
    """A box with its title and the names of its stages."""
    x, y = corner(box)
    middle, first = x + WIDTH // 2, y + 26 + (3 - len(box.stages)) * 5
    names = [f'<text x="{middle}" y="{first + 19 + 15 * number}" font-size="12" font-family="monospace" '
             f'fill="{LINE}">{escape(name)}</text>' for number, name in enumerate(box.stages)]
    return (f'<g text-anchor="middle"><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff" '
            f'stroke="{LINE}" stroke-width="1.5"/><text x="{middle}" y="{first}" font-size="16" font-weight="600" '
            f'fill="{INK}">{escape(box.title)}</text>{"".join(names)}</g>')


def band(row: int, name: str) -> str:
    """The coloured strip behind a row of boxes, with its name."""
    y = TOP + row * STEP_Y
    return (f'<rect x="12" y="{y - 12}" width="{LEFT + COLUMNS * STEP_X - 34 - 12}" height="{HEIGHT + 24}" rx="10" '
            f'fill="{BAND[name]}"/><text x="24" y="{y + HEIGHT // 2 + 5}" font-size="16" font-weight="600" '
            f'fill="{INK}">{name}</text>')


def line(source: Box, target: Box) -> str:
    """An arrow along the grid: straight between neighbours, else down, across and down."""
    (x, y), (u, v) = corner(source), corner(target)
    if source.row == target.row:
        sideways = 1 if target.column > source.column else -1
        start, end = (x + WIDTH, u - 2) if sideways == 1 else (x, u + WIDTH + 2)
        return path(f"M{start} {y + HEIGHT // 2}H{end}", "slices")
    if source.column == target.column:
        return path(f"M{x + WIDTH // 2} {y + HEIGHT}V{v - 2}", "slices")
    aside = 40 if source.column > target.column else 0  # beside the arrow that comes straight from above
    half = y + HEIGHT + (STEP_Y - HEIGHT) // 2
    return path(f"M{x + WIDTH // 2} {y + HEIGHT}V{half}H{u + WIDTH // 2 + aside}V{v - 2}", "slices")


def truth_line(source: Box, target: Box) -> str:
    """From a box in the last column down the right side and up into a box of the last row.

    Raises ValueError where a box stands elsewhere: then the lesion masks reach a stage that must not see them, or the
    grid needs another lane.
    """
    if source.column != COLUMNS - 1 or target.row != ROWS - 1:
        raise ValueError("docs/generate/diagram.py: no lane for lesion masks from "
                         f"{source.title!r} to {target.title!r}")
    (x, y), (u, v) = corner(source), corner(target)
    below = v + HEIGHT + 28
    return path(f"M{x + WIDTH} {y + HEIGHT // 2}H{LANE}V{below}H{u + WIDTH // 2}V{v + HEIGHT + 2}", "truth")


def path(way: str, kind: str) -> str:
    """An arrow of slices (solid) or of lesion masks (dashed)."""
    style = f'stroke="{TRUTH}" stroke-dasharray="6 4"' if kind == "truth" else f'stroke="{LINE}"'
    return f'<path d="{way}" fill="none" {style} stroke-width="1.8" marker-end="url(#{kind})"/>'


def legend() -> str:
    """What the two kinds of arrows carry."""
    y = SIZE[1] - 16
    return (f'<path d="M24 {y - 4}H64" stroke="{TRUTH}" stroke-width="1.8" stroke-dasharray="6 4"/>'
            f'<text x="72" y="{y}" font-size="14" fill="{INK}">lesion masks: nothing that trains or explains sees '
            "them but cut_patches (off by default) and train_supervised (the upper bound)</text>")

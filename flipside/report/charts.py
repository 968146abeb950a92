"""Small inline SVG drawings for the HTML report, in the page's colours, so that they follow its dark mode."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

MAX_POINTS = 300  # longer curves are shown as means of equal runs of steps
WIDTH, HEIGHT = 260, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 15, 8, 32  # the last number on the x axis is centred on the frame


@dataclass(frozen=True)
class Chart:
    """One curve in a frame, with faint curves behind it, marked points on it and a limit on the x axis."""

    title: str
    x: np.ndarray  # (P,)
    y: np.ndarray  # (P,)
    x_label: str
    y_label: str
    behind: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    dashed: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # more of them, drawn dashed
    limit: float | None = None  # x of an upright line
    marks: list[tuple[str, float, float]] = field(default_factory=list)  # name (a CSS class too), x, y
    level: tuple[str, float] | None = None  # name and y of a dashed line across the frame
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class DrawnChart:
    """A chart as SVG, and what stands above it."""

    title: str
    drawing: Markup


def thin(table: pd.DataFrame) -> pd.DataFrame:
    """A curve of at most `MAX_POINTS` points: means over equal runs of rows."""
    size = math.ceil(len(table) / MAX_POINTS)
    return table if size <= 1 else table.groupby(np.arange(len(table)) // size).mean()


def draw(chart: Chart) -> Markup:
    """The chart as SVG with a text alternative."""
    x_low, x_high = chart.x_range or _range(chart.x)
    y_low, y_high = chart.y_range or _range(chart.y)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: np.ndarray | float, y: np.ndarray | float) -> tuple:
        return (LEFT + (np.asarray(x) - x_low) / (x_high - x_low) * across,
                TOP + (1 - (np.asarray(y) - y_low) / (y_high - y_low)) * down)

    parts = []
    for value in _ticks(y_low, y_high):
        y = place(x_low, value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(x_low, x_high):
        x = place(value, y_low)[0]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{LEFT + across / 2:.1f}" y="{HEIGHT - 5}" text-anchor="middle">'
                 f"{escape(chart.x_label)}</text>")
    parts += [_line("behind", *place(x, y)) for x, y in chart.behind]
    parts += [_line("behind dashed", *place(x, y)) for x, y in chart.dashed]
    if chart.limit is not None:
        x = place(chart.limit, y_low)[0]
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    parts.append(_line("curve", *place(chart.x, chart.y)))
    if chart.level:
        name, y = chart.level[0], float(place(x_low, chart.level[1])[1])
        parts.append(f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}">'
                     f"<title>{escape(name)}: {escape(chart.y_label)} {chart.level[1]:.3f}</title></line>")
    for what, mark_x, mark_y in chart.marks:
        x, y = place(mark_x, mark_y)
        parts.append(f'<circle class="mark {escape(what)}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
                     f"<title>{escape(what)}: {escape(chart.x_label)} {mark_x:.3f}, "
                     f"{escape(chart.y_label)} {mark_y:.3f}</title></circle>")
    finite = chart.y[np.isfinite(chart.y)]
    spoken = f"{chart.title}: {chart.y_label} against {chart.x_label}" + (
        f", from {finite[0]:.3g} to {finite[-1]:.3g}" if len(finite) else ", no finite value")
    return Markup(f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}">'
                  f'{"".join(parts)}</svg>')


def draw_interval(value: float, bounds: tuple[float, float] | None, oracle: float | None, largest: float) -> Markup:
    """A value with its interval on a scale 0..largest; the upper bound (oracle) as a hollow diamond."""
    width, middle = 120, 9
    scale = (width - 12) / largest if largest > 0 else 0.0
    x = 6 + value * scale
    parts = [f'<line class="grid" x1="6" x2="{width - 6}" y1="{middle}" y2="{middle}"/>',
             f'<line class="bar" x1="6" x2="{x:.1f}" y1="{middle}" y2="{middle}"/>']
    if bounds:
        low, high = (6 + bound * scale for bound in bounds)
        parts.append(f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8'
                     f'M{high:.1f} {middle - 4}v8"/>')
    parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{middle}" r="3.5"/>')
    if oracle is not None:
        parts.append(f'<path class="oracle" d="M{6 + oracle * scale:.1f} {middle - 4.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>')
    return Markup(f'<svg class="interval" viewBox="0 0 {width} 18" aria-hidden="true">{"".join(parts)}</svg>')


def draw_strip(values: np.ndarray, name: str) -> Markup:
    """One tick per case on a scale 0..1 and a long one at the mean."""
    ticks = "".join(f"M{4 + 192 * value:.1f} 6v8" for value in np.sort(values))
    mean = 4 + 192 * float(np.mean(values))
    spoken = f"{name} of {len(values)} cases, {np.min(values):.3f} to {np.max(values):.3f}"
    return Markup(f'<svg class="strip" viewBox="0 0 200 20" role="img" aria-label="{escape(spoken)}">'
                  f'<line class="grid" x1="4" x2="196" y1="10" y2="10"/>'
                  f'<path class="case" d="{ticks}"/><path class="mean" d="M{mean:.1f} 1v18"/></svg>')


def draw_patients(means: pd.Series, mean: float, bounds: tuple[float, float] | None, name: str) -> Markup:
    """One dot per patient (index: patient, values in [0,1]) on a scale 0..1, with the mean and its interval."""
    width, middle = 420, 12
    start, across = 6, width - 12
    parts = [f'<line class="grid" x1="{start}" x2="{start + across}" y1="{middle}" y2="{middle}"/>']
    parts += [f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 4}" y2="{middle + 4}"/>'
              for x in start + across * np.array([0, 0.25, 0.5, 0.75, 1])]
    if bounds:
        low, high = (start + across * bound for bound in bounds)
        parts.append(f'<line class="bar" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
    parts += [f'<circle class="patient" cx="{start + across * value:.1f}" cy="{middle}" r="3.6">'
              f"<title>patient {escape(patient)}: {value:.3f}</title></circle>" for patient, value in means.items()]
    x = start + across * mean
    parts.append(f'<path class="mean" d="M{x:.1f} {middle - 9}v18"/>')
    spoken = f"{name} of {len(means)} patients, {means.min():.3f} to {means.max():.3f}, mean of all cases {mean:.3f}"
    return Markup(f'<svg class="patients" viewBox="0 0 {width} 24" role="img" aria-label="{escape(spoken)}">'
                  f'{"".join(parts)}</svg>')


def draw_parts(parts: dict[str, float]) -> Markup:
    """Parts of a whole on one bar from 0 to 1, in their order; a part's name is the CSS class of its colour."""
    width, start, drawn = 360, 0.0, []
    for name, value in parts.items():
        drawn.append(f'<rect class="part {escape(name)}" x="{width * start:.1f}" y="2" width="{width * value:.1f}" '
                     f'height="12"/>')
        start += value
    return Markup(f'<svg class="parts" viewBox="0 0 {width} 16" aria-hidden="true">{"".join(drawn)}</svg>')


def draw_level(value: float, largest: float) -> Markup:
    """A bare bar on a scale 0..largest, beside its number."""
    length = 66 * value / largest if largest > 0 else 0.0
    return Markup(f'<svg class="level" viewBox="0 0 70 10" aria-hidden="true">'
                  f'<line class="bar" x1="2" x2="{2 + length:.1f}" y1="5" y2="5"/></svg>')


def _line(css_class: str, x: np.ndarray, y: np.ndarray) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(a) and np.isfinite(b))
    return f'<polyline class="{css_class}" points="{points}"/>'


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    inside = MaxNLocator(4).tick_values(low, high)
    margin = 1e-9 * (high - low)
    return [float(round(value, 10)) for value in inside if low - margin <= value <= high + margin]

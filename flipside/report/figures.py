"""The report's PNG figures, for DVC's plots and for the README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from flipside.core.files import atomic_file
from flipside.core.params import value_at
from flipside.masks.extraction.thresholds import HEADLINE
from flipside.metrics.families.lost_iou import LostIou
from flipside.metrics.registry import label
from flipside.report.badges import badge
from flipside.report.cases import lesion_cases, shared_cases
from flipside.report.inputs import ReportInputs
from flipside.report.pictures import DIFFERENCE, MASK, case_pictures, compared_pictures
from flipside.report.sections.lost_iou import results_with_lost_iou
from flipside.report.tables import interval

INK, MUTED, ACCENT, UPPER = "#1f2933", "#8a94a0", "#2563a8", "#b3541e"
GAP = 3  # pixels between the pictures of a montage, of MONTAGE_SIDE pixels each
MONTAGE_SIDE = 96
# Colours of the IoU and of what it is lost to; lesion pixels missed and marked in vain as in the pictures of masks.
PARTS = dict(zip((f"iou_{HEADLINE}", *LostIou.columns), (ACCENT, "#fad228", "#eb403c", "#9b5fd0", MUTED), strict=True))
DASHES = ("--", ":", "-.")  # of the controls


def write_figures(folder: Path | str, inputs: ReportInputs) -> None:
    """ranking.png, thresholds.png, gallery.png, comparison.png; lost_iou.png where there are lesion masks; changes.png
    and flips.png where a method makes counterfactuals. The same inputs give the same bytes."""
    figures = {"ranking": draw_ranking(inputs), "thresholds": draw_thresholds(inputs),
               "gallery": draw_gallery(inputs), "comparison": draw_comparison(inputs)}
    if results_with_lost_iou(inputs):
        figures["lost_iou"] = draw_lost_iou(inputs)
    if inputs.with_counterfactual():
        figures |= {"changes": draw_changes(inputs), "flips": draw_flips(inputs)}
    for name, figure in figures.items():
        save_figure(Path(folder) / f"{name}.png", figure)


def save_figure(file: Path | str, figure: Figure) -> None:
    """Write a PNG without software or date in its metadata: the bytes depend on the picture alone."""
    with atomic_file(file) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None}, facecolor="white")


def draw_ranking(inputs: ReportInputs) -> Figure:
    """One line per method: value, interval, the cases behind it as faint dots, the oracle as a hollow diamond."""
    rank_by = inputs.rank_by
    ranked = [result for result in inputs.results.values() if rank_by in result.metrics]
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(ranked):
        values = result.metrics
        colour = MUTED if result.is_control or result.is_upper_bound else ACCENT
        if rank_by in result.cases:
            scores = result.cases.loc[result.cases["label"] == 1, rank_by].dropna()
            axes.plot(scores, np.full(len(scores), place), "|", color=colour, alpha=0.25, markersize=8)
        if bounds := interval(values, rank_by):
            axes.plot(bounds, [place, place], "-", color=colour, linewidth=2.5)
        axes.plot(values[rank_by], place, "o", color=colour, markersize=6)
        if rank_by.startswith("iou_") and "iou_oracle" in values:
            axes.plot(values["iou_oracle"], place, "D", markerfacecolor="none", markeredgecolor=UPPER, markersize=6)
    axes.set_yticks(range(len(ranked)), [
        result.name + badge(result.name, result.metrics, inputs.params.controls, " ({})")
        for result in ranked])
    axes.invert_yaxis()
    oracle = ", oracle as a diamond (upper bound)" if rank_by.startswith("iou_") else ""
    axes.set_xlabel(f"{label(rank_by)}: mean with interval, each test slice as a tick{oracle}", color=INK, fontsize=9)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#e3e7eb")
    _calm(axes)
    return figure


def draw_lost_iou(inputs: ReportInputs) -> Figure:
    """One bar from 0 to 1 per method: its IoU, then what the rest is lost to."""
    results = results_with_lost_iou(inputs)
    figure = Figure(figsize=(8, 1.4 + 0.28 * len(results)), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(results))
    for name, colour in PARTS.items():
        values = np.array([result.metrics[name] for result in results])
        axes.barh(range(len(results)), values, left=start, height=0.72, color=colour, edgecolor="white", linewidth=0.6,
                  label=label(name))
        start += values
    axes.set_yticks(range(len(results)), [
        result.name + badge(result.name, result.metrics, inputs.params.controls, " ({})") for result in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean over the slices with a lesion", color=INK, fontsize=9)
    figure.legend(loc="outside upper center", ncols=len(PARTS), fontsize=8, frameon=False)
    _calm(axes)
    return figure


def draw_thresholds(inputs: ReportInputs) -> Figure:
    """One small frame per method: IoU over the threshold, all methods behind, the chosen thresholds as points."""
    names = [name for name in inputs.results if (inputs.curves["method"] == name).any()]
    columns = 4
    rows = max(1, -(-len(names) // columns))
    figure = Figure(figsize=(9, 1.9 * rows + 0.3), layout="constrained")
    frames = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    curves = {name: inputs.curves[inputs.curves["method"] == name].sort_values("threshold") for name in names}
    for frame, name in zip(frames, names, strict=False):
        for other in curves.values():
            frame.plot(other["threshold"], other["iou"], color="#dfe3e7", linewidth=0.8)
        frame.plot(curves[name]["threshold"], curves[name]["iou"], color=ACCENT, linewidth=1.8)
        for policy, colour in (("val", INK), ("oracle", UPPER)):
            if isinstance(x := inputs.results[name].thresholds.get(policy), float):
                frame.plot(x, np.interp(x, curves[name]["threshold"], curves[name]["iou"]), "o", color=colour,
                           markerfacecolor=colour if policy == "val" else "white", markersize=5)
        if (reached := inputs.results[name].metrics.get(f"iou_{HEADLINE}")) is not None:
            frame.axhline(reached, color=INK, linewidth=0.8, linestyle="--")
        frame.set_title(name, fontsize=9, loc="left", color=INK)
        _calm(frame)
    for frame in frames[len(names):]:
        frame.set_visible(False)
    figure.supxlabel("one threshold for all maps (filled: chosen on validation, hollow: oracle; dashed: label-free)",
                     fontsize=9)
    figure.supylabel("IoU", fontsize=9)
    return figure


def draw_flips(inputs: ReportInputs) -> Figure:
    """One line per method that makes counterfactuals: flips that count over the greatest change allowed. Controls are
    grey, the bound in use an upright line."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    names = [result.name for result in inputs.with_counterfactual() if (inputs.flips["method"] == result.name).any()]
    controls = [name for name in names if inputs.results[name].is_control]
    methods = [name for name in names if name not in controls]
    for name in names:
        curve = inputs.flips[inputs.flips["method"] == name]
        colour, line = ((MUTED, DASHES[controls.index(name) % len(DASHES)]) if name in controls
                        else (f"C{methods.index(name) % 10}", "-"))
        axes.plot(curve["bound"], curve["bounded_flip_rate"], label=name, linewidth=1.6, color=colour, linestyle=line)
    axes.axvline(value_at(inputs.parameters, "evaluate.change_bound"), color=UPPER, linewidth=1)
    axes.set_xlabel("greatest change allowed, as a share of what a blur changes (line: the bound in use)", fontsize=9)
    axes.set_ylabel(label("bounded_flip_rate"), fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _calm(axes)
    return figure


def draw_gallery(inputs: ReportInputs) -> Figure:
    """Best, median and worst lesion slice of every method: scan, counterfactual or attribution, difference, mask."""
    rows: list[list[np.ndarray]] = []
    places: list[str] = []
    for result in inputs.results.values():
        cases = lesion_cases(inputs, result)
        places = [place for place, _ in cases] or places
        rows.append([picture for _, slice_id in cases
                     for picture in case_pictures(inputs, result, slice_id).values()])
    panels = ["scan", "counterfactual / overlay", "difference / map", *([MASK] if inputs.has_lesion_masks else [])]
    heads = [f"{place}: {panel}" if i == 0 else panel for place in places for i, panel in enumerate(panels)]
    return _montage(rows, list(inputs.results), heads, group=len(panels))


def draw_comparison(inputs: ReportInputs) -> Figure:
    """The same lesion slices for all methods: scan, truth where it is known, then one mask or map per method."""
    cases = shared_cases(inputs)
    rows = [compared_pictures(inputs, slice_id) for _, slice_id in cases]
    return _montage([list(row.values()) for row in rows], [place for place, _ in cases], list(rows[0]),
                    group=len(rows[0]))


def draw_changes(inputs: ReportInputs) -> Figure:
    """What each counterfactual changes in the same slices, without the scans: for images that may not be passed on."""
    cases = shared_cases(inputs)
    makers = inputs.with_counterfactual()
    rows = [[case_pictures(inputs, maker, slice_id)[DIFFERENCE] for _, slice_id in cases] for maker in makers]
    return _montage(rows, [maker.name for maker in makers], [place for place, _ in cases], group=len(cases))


def _montage(rows: list[list[np.ndarray]], row_names: list[str], column_names: list[str], group: int) -> Figure:
    """Pictures (H,W,3) in a grid, as one image with names beside and above; wider gaps after each `group` columns."""
    across, step = max(len(row) for row in rows), MONTAGE_SIDE + GAP
    x = [j * step + j // group * 3 * GAP for j in range(across)]
    canvas = np.full((step * len(rows), x[-1] + MONTAGE_SIDE, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            canvas[i * step : i * step + MONTAGE_SIDE, x[j] : x[j] + MONTAGE_SIDE] = _fitted(picture)
    inch = 0.7 / step  # of one canvas pixel
    left, top, right = 1.2, 0.2 + 0.05 * max(map(len, column_names)), 0.5
    width, height = left + inch * canvas.shape[1] + right, top + inch * canvas.shape[0]
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, 0, inch * canvas.shape[1] / width, inch * canvas.shape[0] / height))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for i, name in enumerate(row_names):
        axes.text(-8, i * step + MONTAGE_SIDE / 2, name, ha="right", va="center", fontsize=8, color=INK)
    for left_edge, name in zip(x, column_names, strict=False):
        axes.text(left_edge + MONTAGE_SIDE / 3, -8, name, ha="left", va="bottom", rotation=40, fontsize=7.5, color=INK)
    return figure


def _fitted(picture: np.ndarray) -> np.ndarray:
    """Picture (H,W,3) in the middle of a white square of MONTAGE_SIDE pixels, which its longer side fills: enlarged by
    its nearest pixels, shrunk smoothly."""
    longer = max(picture.shape[:2])
    how = Image.Resampling.LANCZOS if longer > MONTAGE_SIDE else Image.Resampling.NEAREST
    height, width = (max(1, round(side * MONTAGE_SIDE / longer)) for side in picture.shape[:2])
    square = np.full((MONTAGE_SIDE, MONTAGE_SIDE, 3), 255, np.uint8)
    top, left = (MONTAGE_SIDE - height) // 2, (MONTAGE_SIDE - width) // 2
    square[top : top + height, left : left + width] = np.asarray(Image.fromarray(picture).resize((width, height), how))
    return square


def _calm(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)

"""dvc.yaml as typed stages, and the boxes in which the diagram draws them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from flipside.core.params import value_at

CODE = ("flipside/", "stages/")


@dataclass(frozen=True)
class Stage:
    """One entry of dvc.yaml; `${key}` is left as it stands."""

    name: str
    description: str
    command: str
    foreach: str  # the section of params.yaml whose names the stage is run for; empty for a single stage
    deps: list[str]
    params: list[str]
    outs: list[str]


@dataclass(frozen=True)
class Box:
    """A box of the diagram: the stages in it and its place in a grid, column and row counted from 0."""

    title: str
    stages: tuple[str, ...]
    column: int
    row: int


BOXES = (
    Box("Check, simulate", ("check_params", "simulate_scans", "simulate_effects"), 0, 0),
    Box("Extract slices", ("extract_slices",), 1, 0),
    Box("Split by patient", ("split_patients",), 2, 0),
    Box("Draw anomalies", ("draw_anomalies", "cut_patches", "train_supervised"), 3, 0),
    Box("Train classifiers", ("train_classifier",), 3, 1),
    Box("Train generators", ("train_generator", "train_segmenter"), 2, 1),
    Box("Search latent spaces", ("train_encoder", "invert", "find_attributes"), 1, 1),
    Box("Explain", ("explain", "read_foreign_maps"), 1, 2),
    Box("Judge the images", ("judge_counterfactuals", "measure_realism"), 2, 2),
    Box("Probe the inpainter", ("probe_inpainter",), 3, 2),
    Box("Make masks", ("extract_masks", "extract_foreign_masks", "segment_scans"), 1, 3),
    Box("Evaluate", ("evaluate", "check_inpainter"), 2, 3),
    Box("Report", ("report", "published_tables"), 3, 3),
)
BANDS = ("Prepare", "Train", "Explain", "Measure")  # what the rows of the grid are about


@dataclass
class Arrows:
    """What one box hands to another, as pairs of positions in BOXES."""

    slices: set[tuple[int, int]] = field(default_factory=set)  # images, models, maps, numbers
    truth: set[tuple[int, int]] = field(default_factory=set)  # lesion masks


def read_stages(root: Path = Path()) -> list[Stage]:
    """All stages in dvc.yaml's order. A dep `${item.…}` becomes all that params.yaml says there."""
    values = yaml.safe_load((root / "params.yaml").read_text())
    stages = []
    for name, entry in yaml.safe_load((root / "dvc.yaml").read_text())["stages"].items():
        stage, foreach = entry.get("do", entry), entry.get("foreach", "").strip("${}")
        blocks = value_at(values, foreach) if foreach else {}
        deps = [path for dep in paths(stage["deps"]) for path in items(dep, blocks)]
        outs = [out for kind in ("outs", "metrics") for out in paths(stage.get(kind, []))]
        stages.append(Stage(name, stage.get("desc", ""), stage["cmd"], foreach, list(dict.fromkeys(deps)),
                            parameters(stage.get("params", [])), outs))
    return stages


def items(dep: str, section: Any) -> list[str]:
    """The values that a dep `${item.…}` has over a section's blocks; any other dep as it is."""
    match = re.fullmatch(r"\$\{item\.(\w+)\}", dep)
    return sorted({block[match[1]] for block in section.values()}) if match else [dep]


def parameters(entries: list[Any]) -> list[str]:
    """Keys of params.yaml, and of other files as `file:key`."""
    return [key for entry in entries for key in (
        [f"{file}:{key}" for file, keys in entry.items() for key in keys] if isinstance(entry, dict) else [entry])]


def paths(entries: list[Any]) -> list[str]:
    """Paths of deps or outs, whether or not they carry options."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def produces(out: str, dep: str) -> bool:
    """Whether a dep is an out, lies in it or holds it; `${…}` stands for any one name."""
    parts = [re.sub(r"\$\{[^}]*\}", "*", path).split("/") for path in (out, dep)]
    return all(fnmatch(ours, theirs) or fnmatch(theirs, ours) for ours, theirs in zip(*parts, strict=False))


def arrows(stages: list[Stage]) -> Arrows:
    """Which box feeds which. Of the arrows that carry no lesion masks only those are kept that no longer way replaces;
    an arrow with lesion masks is kept where no other arrow joins the same boxes."""
    place = {name: number for number, box in enumerate(BOXES) for name in box.stages}
    found = Arrows()
    for source in stages:
        for target in stages:
            pair = (place[source.name], place[target.name])
            for out in source.outs:
                if pair[0] != pair[1] and any(produces(out, dep) for dep in target.deps):
                    (found.truth if "truth" in out else found.slices).add(pair)
    kept = {(start, end) for start, end in found.slices if not reaches(start, end, found.slices - {(start, end)})}
    return Arrows(kept, found.truth - kept)


def reaches(start: int, end: int, pairs: set[tuple[int, int]]) -> bool:
    """Whether a way leads from start to end."""
    seen, ahead = set(), {start}
    while ahead:
        seen |= ahead
        ahead = {target for source, target in pairs if source in ahead} - seen
    return end in seen

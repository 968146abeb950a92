"""Ways to turn attribution maps into masks: a mask is where the map is strictly above a threshold.

label_free  a threshold per map, by a rule that needs no lesion mask (see label_free.py): what a reader sees
fixed       the same number for every method
otsu        Otsu's threshold of the method's validation maps (Otsu, 1979): needs no labels
val         best mean IoU on the validation split's lesion slices: a declared budget of lesion masks
oracle      the same on the test split: no result, but the upper bound of what one threshold for all maps can reach

With `gate`, a slice that the explained classifier calls healthy has an empty mask under all of them. Where trained
models are applied to another data set, all but the oracle are carried over from the models' own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator
from skimage.filters import threshold_otsu

from flipside.core.files import read_json, write_json
from flipside.core.packed_masks import Rows, Stack
from flipside.core.params import Params
from flipside.core.row_batches import row_batches
from flipside.masks.extraction.label_free import (
    FittedRule,
    LabelFreeParams,
    fit_rule,
    mark,
    needs_healthy_maps,
    shares,
)
from flipside.masks.extraction.morphology import Step, clean

Policy = Literal["label_free", "fixed", "otsu", "val", "oracle"]
# What a reader should know of each, and what it costs.
POLICIES: dict[Policy, str] = {
    "label_free": "threshold of each map by a rule that takes no lesion mask",
    "fixed": "one threshold set beforehand",
    "otsu": "Otsu's threshold of the method's validation maps, no labels",
    "val": "threshold chosen on the lesion masks of the validation split",
    "oracle": "threshold chosen on the test split's own lesion masks: an upper bound, not a result",
}
HEADLINE: Policy = "label_free"  # what methods are ranked, compared and shown by
COMPARED: tuple[Policy, ...] = (HEADLINE, "val")  # what else than overlap is measured of: distances, differences
Cut = float | FittedRule  # one threshold for all maps, or a rule for each
OTSU_BINS = 256
SHARES = np.arange(1, 20) / 20  # of the curve that shows how much hangs on `label_free.share`


class MaskParams(Params):
    """Section `masks`: from maps to masks, the same for every method."""

    label_free: LabelFreeParams
    """The rule of the policy `label_free`."""
    fixed: float = Field(ge=0, le=1)
    """Threshold of the policy `fixed`."""
    sweep_step: float = Field(gt=0, le=0.5)
    """Distance between the thresholds from 0 to 1 that the policies `val` and `oracle` try; must divide 1."""
    gate: bool
    """Whether a slice that the explained classifier calls healthy gets an empty mask, under every policy."""
    inside_organ: bool
    """Whether the maps of all methods count as 0 outside of the organ (closing may still add a pixel at its edge)."""
    morphology: list[Step]
    """Steps that clean the masks, in their order; masks are measured without them as well."""

    @field_validator("sweep_step")
    @classmethod
    def _divides_one(cls, step: float) -> float:
        if abs(1 / step - round(1 / step)) > 1e-6:
            raise ValueError("must divide 1 into equal steps, as 0.01 does")
        return step


class MaskError(ValueError):
    """Maps, slices and truth from which no masks can be made."""


def binarise(maps: np.ndarray, cut: Cut, steps: list[Step]) -> np.ndarray:
    """Masks (N,H,W) bool of maps (N,H,W) in [0,1]: strictly above the threshold, then cleaned.

    A map of zeros gives an empty mask at every threshold.
    """
    if isinstance(cut, FittedRule):
        return clean(mark(maps, cut), steps)
    # float16 would round the threshold: compare in the precision that `iou_by_threshold` uses.
    return clean(np.asarray(maps, np.float32) > np.float32(cut), steps)


def gated(index: pd.DataFrame, params: MaskParams) -> np.ndarray:
    """Which of the N slices get an empty mask (N,) bool; index: N rows with called_healthy."""
    return index["called_healthy"].to_numpy(bool) & params.gate


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of a stack of masks or maps, read where they are asked for, and what `change` makes of them."""

    stack: Stack
    rows: np.ndarray  # (n,)
    change: Callable[[np.ndarray], np.ndarray] = np.asarray

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.stack.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        return self.change(self.stack[self.rows[rows]])


def otsu(maps: Stack, rows: np.ndarray) -> float:
    """Otsu's threshold over all pixels of some rows of maps (N,H,W) in [0,1]; of constant maps their one value."""
    parts = [rows[part] for part in row_batches((len(rows), *maps.shape[1:]))]
    low, high = float(min(maps[part].min() for part in parts)), float(max(maps[part].max() for part in parts))
    if low == high:
        return low
    counts = np.zeros(OTSU_BINS, np.int64)
    for part in parts:
        found, edges = np.histogram(np.asarray(maps[part], np.float32), bins=OTSU_BINS, range=(low, high))
        counts += found
    return float(threshold_otsu(hist=(counts, (edges[:-1] + edges[1:]) / 2)))


def candidates(params: MaskParams, *others: float) -> np.ndarray:
    """Thresholds (K,) that val and oracle try, ascending: the sweep from 0 to 1, `fixed`, and the other policies' own,
    so that no other threshold for all maps can beat the oracle."""
    sweep = np.round(np.arange(round(1 / params.sweep_step) + 1) * params.sweep_step, 10)
    return np.unique(np.r_[sweep, params.fixed, others])


def iou_by_threshold(maps: Stack, lesion: Stack, thresholds: np.ndarray, steps: list[Step]) -> np.ndarray:
    """IoU (N,K) of maps (N,H,W) in [0,1] cut at each of the thresholds (K,), cleaned, with lesions (N,H,W) 0/1.

    No lesion may be empty. A pixel's level is the number of thresholds below its value, so the mask at thresholds[k]
    is `level > k`; what can be done on levels once (opening, closing, counting) is not done for each threshold.
    Measured on 64 maps of 128 x 128 pixels at 102 thresholds: `binarise` and an IoU at each of them take 9 times as
    long without cleaning, 4 times with opening, closing and the largest component (which has to see each mask).
    """
    first = steps.index("largest_component") if "largest_component" in steps else len(steps)
    cut = thresholds.astype(np.float32)
    dtype = np.uint8 if len(cut) < 256 else np.uint16
    result = np.empty((len(maps), len(cut)))
    for part in row_batches(maps.shape):
        truth = np.asarray(lesion[part]) > 0  # (B,H,W)
        levels = np.searchsorted(cut, np.asarray(maps[part], np.float32), side="left").astype(dtype)
        levels = clean(levels, steps[:first])
        if first == len(steps):
            result[part] = _iou_of_levels(levels, truth, len(cut))
        else:
            result[part] = _iou_of_masks(levels, truth, len(cut), steps[first:])
    return result


def _iou_of_levels(levels: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """IoU (B,K) of the masks `levels > k` with the truth, from one histogram of levels per slice."""
    slices = len(levels)
    row = np.arange(slices).reshape(-1, 1, 1)
    code = (row * 2 + truth) * (count + 1) + levels  # (B,H,W)
    histogram = np.bincount(code.ravel(), minlength=slices * 2 * (count + 1)).reshape(slices, 2, count + 1)
    above = histogram[:, :, ::-1].cumsum(axis=2)[:, :, -2::-1]  # (B,2,K): pixels with level > k outside, inside truth
    outside, inside = above[:, 0], above[:, 1]
    return inside / (outside + truth.sum(axis=(1, 2))[:, None])


def _iou_of_masks(levels: np.ndarray, truth: np.ndarray, count: int, steps: list[Step]) -> np.ndarray:
    """IoU (B,K) of the masks `levels > k`, cleaned by steps that have to see each mask."""
    result = np.zeros((len(levels), count))
    lesion_px, highest = truth.sum(axis=(1, 2)), levels.max(axis=(1, 2))
    for k in range(count):
        rows = np.flatnonzero(highest > k)  # the other masks are empty
        if len(rows) == 0:
            break
        masks = clean(levels[rows] > k, steps)
        both = np.count_nonzero(masks & truth[rows], axis=(1, 2))
        result[rows, k] = both / (np.count_nonzero(masks, axis=(1, 2)) + lesion_px[rows] - both)
    return result


def lesion_rows(lesion: Stack, index: pd.DataFrame, split: str) -> np.ndarray:
    """Rows of a split's slices that are labelled abnormal and show a lesion (one can vanish when masks are resized)."""
    rows = np.flatnonzero((index["split"] == split) & (index["label"] == 1))
    return rows[np.array([lesion[row].any() for row in rows], bool)]


def describe(cut: Cut) -> str:
    """A threshold in three digits, or a rule in words."""
    return str(cut) if isinstance(cut, FittedRule) else f"{cut:.3f}"


def write_cuts(file: Path, cuts: dict[str, Cut]) -> None:
    """thresholds.json: a number or a rule by the name of its policy."""
    write_json(file, {name: cut.model_dump(exclude_none=True) if isinstance(cut, FittedRule) else cut
                      for name, cut in cuts.items()})


def read_cuts(file: Path) -> dict[str, Cut]:
    """What `write_cuts` wrote."""
    return {name: FittedRule.model_validate(cut) if isinstance(cut, dict) else float(cut)
            for name, cut in read_json(file).items()}


def read_carried(folder: Path | str, method: str) -> dict[str, Cut]:
    """Thresholds {policy: cut, policy_raw: cut} of a method in another run's folder of masks, without its oracle's."""
    file = Path(folder) / method / "thresholds.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found: finish the run that the thresholds are carried from (`dvc repro`)")
    return {name: cut for name, cut in read_cuts(file).items() if not name.startswith("oracle")}


def choose(maps: Stack, lesion: Stack | None, index: pd.DataFrame, params: MaskParams,
           carried: dict[str, Cut] | None = None) -> tuple[dict[str, Cut], pd.DataFrame | None]:
    """Thresholds {policy: cut, policy_raw: cut} with and without morphology, and the curves that they come from.

    maps (N,H,W) in [0,1]; lesion (N,H,W) 0/1; index: N rows with split, label and called_healthy. The curves have one
    row per threshold: mean IoU over the lesion slices of val and of test, cleaned and raw. Without lesion masks (None)
    there are no curves, and val and oracle are left out. `carried` (see `read_carried`) stands in for every choice but
    the oracle's: then nothing is chosen on val.
    """
    if carried is not None:
        return _choose_oracle(maps, lesion, index, params, carried)
    val = np.flatnonzero(index["split"] == "val")
    if len(val) == 0:
        raise MaskError("no explained slice belongs to the split val, where thresholds are chosen: "
                        "add val to explain.splits, or give the data set more patients")
    chosen: dict[str, Cut] = {HEADLINE: choose_rule(maps, index, params.label_free), "fixed": params.fixed,
                              "otsu": otsu(maps, val)}
    chosen |= {f"{policy}_raw": cut for policy, cut in chosen.items()}
    if lesion is None:
        return chosen, None

    return _choose_best(maps, lesion, index, params, chosen, {"val": "val", "oracle": "test"})


def choose_rule(maps: Stack, index: pd.DataFrame, params: LabelFreeParams) -> FittedRule:
    """The rule of the policy label_free, fitted to maps of validation slices labelled healthy where it needs them."""
    if not needs_healthy_maps(params):
        return fit_rule(params)
    rows = np.flatnonzero((index["split"] == "val") & (index["label"] == 0))
    if len(rows) == 0:
        raise MaskError(f"no validation slice is labelled healthy, which `masks.label_free.rule` {params.rule} needs: "
                        "take another rule, such as share_of_maximum")
    return fit_rule(params, maps[rows])


def share_curve(maps: Stack, lesion: Stack, index: pd.DataFrame, params: MaskParams) -> pd.DataFrame:
    """Columns share, iou_val, iou_test: mean IoU of a split's lesion slices where maps are cut at that share of what
    the rule takes a share of (see label_free.py) and cleaned; a split without lesion slices has no column."""
    curve = pd.DataFrame({"share": SHARES})
    for split in ("val", "test"):
        if len(rows := lesion_rows(lesion, index, split)):
            levels = ChosenRows(maps, rows, functools.partial(shares, rule=params.label_free))
            ious = iou_by_threshold(levels, ChosenRows(lesion, rows), SHARES, params.morphology)  # (n,K)
            ious[gated(index, params)[rows]] = 0
            curve[f"iou_{split}"] = ious.mean(axis=0)
    return curve


def _choose_oracle(maps: Stack, lesion: Stack | None, index: pd.DataFrame, params: MaskParams,
                   carried: dict[str, Cut]) -> tuple[dict[str, Cut], pd.DataFrame | None]:
    if lesion is None:
        return carried, None
    lacking = [name for policy in [*POLICIES][:-1] for name in (policy, f"{policy}_raw") if name not in carried]
    if lacking:
        raise MaskError(f"the thresholds carried from the other run lack {lacking}, found {sorted(carried)}: without "
                        "lesion masks it could not choose them, so its models can't be scored on lesion masks")
    return _choose_best(maps, lesion, index, params, carried, {"oracle": "test"})


def _choose_best(maps: Stack, lesion: Stack, index: pd.DataFrame, params: MaskParams,
                 known: dict[str, Cut], split_of: dict[str, str]) -> tuple[dict[str, Cut], pd.DataFrame]:
    """The known thresholds and those of the policies in `split_of`, each best on its split; the splits' curves."""
    numbers = [cut for cut in known.values() if not isinstance(cut, FittedRule)]
    chosen, curves = dict(known), pd.DataFrame({"threshold": candidates(params, *numbers)})
    for policy, split in split_of.items():
        rows = lesion_rows(lesion, index, split)
        if len(rows) == 0:
            raise MaskError(f"the split {split} has no slice with a lesion, which the policy {policy} needs: "
                            "give the data set more patients with lesions or change how it is split")
        for suffix, steps in (("", params.morphology), ("_raw", [])):
            ious = iou_by_threshold(ChosenRows(maps, rows), ChosenRows(lesion, rows), curves["threshold"].to_numpy(),
                                    steps)  # (n,K)
            ious[gated(index, params)[rows]] = 0
            mean = ious.mean(axis=0)
            curves[f"iou_{split}{suffix}"] = mean
            chosen[f"{policy}{suffix}"] = float(curves["threshold"][int(np.argmax(mean))])  # of equal ones the lowest
    return chosen, curves

"""Which rule of `masks.label_free` finds lesions best: every rule on the validation split of finished runs.

`python -m benchmarks.label_free --runs . ../lgg ../curvas`. For each rule and method: mean IoU of the validation
split's lesion slices (gated, cleaned) and the marked share of its healthy slices. A rule's score is the mean over
methods (without the controls) of its IoU divided by that of the method's best single threshold on the same slices.

Where anomalies were drawn, the slice before its anomaly is put to the rules like a counterfactual: the clean slice.

The rule of choice, among those by which the clean slice has an IoU of at least 0.90: the highest score averaged over
data sets, to two decimals; of equal ones the one whose lowest score is highest, then the first in the list, which goes
from simple to less simple. The test split is never read.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL, Explanations
from flipside.artifacts.truth import open_truth
from flipside.core.params import PARAMS_FILE, read_params, value_at
from flipside.core.progress import progress
from flipside.core.store import SliceStore
from flipside.masks.extraction.label_free import BACKGROUNDS, BASES, RULES, LabelFreeParams, fit_rule
from flipside.masks.extraction.morphology import Step
from flipside.masks.extraction.thresholds import Cut, binarise, iou_by_threshold, lesion_rows, otsu

SHARES = (0.5, 0.4, 0.6, 0.3, 0.7, 0.8)
WINDOWS = (0.08, 0.11, 0.14)  # 5, 7 and 9 pixels of 64
QUANTILES = {"healthy_quantile": (0.95, 0.99, 0.999), "healthy_maxima": (0.5, 0.9, 0.95)}
THRESHOLDS = np.arange(101) / 100  # of which the best single one is taken
FIXED = 0.25
CLEAN = "clean slice"
LEAST_OF_CLEAN = 0.90


@dataclass(frozen=True)
class ValidationMaps:
    """One method's maps of the validation split."""

    maps: np.ndarray  # (V,H,W) float32 in [0,1]
    lesion: np.ndarray  # (V,H,W) uint8
    scored: np.ndarray  # (V,) bool: labelled abnormal, with a lesion left
    healthy: np.ndarray  # (V,) bool: labelled healthy
    empty: np.ndarray  # (V,) bool: called healthy, so without a mask


def candidates() -> list[LabelFreeParams]:
    """The rules that are compared, from simple to less simple."""
    found = [LabelFreeParams(rule=rule, background=background, share=share, window=window, quantile=0.99, smooth_px=px)
             for rule in BASES for px in (1, 3) for background in BACKGROUNDS for share in SHARES
             for window in (WINDOWS if "window" in RULES[rule].parameters else WINDOWS[:1])]
    for rule in RULES:
        if rule not in BASES:
            found += [LabelFreeParams(rule=rule, background="median", share=0.5, window=WINDOWS[0], quantile=quantile,
                                      smooth_px=px)
                      for px in (1, 3) for quantile in QUANTILES.get(rule, (0.99,))]
    return found


def name_of(params: LabelFreeParams) -> str:
    """A rule in a table's first column."""
    own = [f"{getattr(params, name):g}" for name in RULES[params.rule].parameters]
    return " ".join([params.rule, params.background, *own,
                     *(["smoothed"] if params.smooth_px > 1 else [])])


def read_validation(run: Path, method: str) -> ValidationMaps:
    """A method's validation maps; of the test split nothing is read, neither maps nor lesion masks."""
    store = SliceStore.open(run / "data/slices")
    explanations = Explanations.open(run / "data/explanations" / method)
    rows = store.rows("val")
    index = store.index.iloc[rows].reset_index(drop=True)
    at = pd.Index(explanations.index["slice_id"]).get_indexer(index["slice_id"])
    if len(rows) == 0 or (at < 0).any():
        raise ValueError(f"{run}/data/explanations/{method}: {(at < 0).sum()} of {len(rows)} validation slices are not "
                         f"explained: run `dvc repro explain@{method}` in {run}")
    lesion = open_truth(run / "data/truth", store.organ.shape)[rows]
    scored = np.zeros(len(rows), bool)
    scored[lesion_rows(lesion, index, "val")] = True
    if not scored.any():
        raise ValueError(f"{run}: no validation slice has a lesion mask, so rules can't be compared there")
    return ValidationMaps(np.asarray(explanations.attribution[at], np.float32), lesion, scored,
                          (index["label"] == 0).to_numpy(), explanations.index["f_x"].to_numpy()[at] < CALLED_ABNORMAL)


def perfect_maps(run: Path, data: ValidationMaps) -> ValidationMaps | None:
    """The same slices with |x - clean| for maps, each divided by its maximum; None where no anomaly was drawn."""
    store, before = (SliceStore.open(run / "data" / name) for name in ("slices", "filtered"))
    rows = store.rows("val")
    at = pd.Index(before.index["slice_id"]).get_indexer(store.index["source_slice_id"].iloc[rows])
    change = np.abs(np.asarray(store.images[rows], np.float32) - np.asarray(before.images[at], np.float32))
    change = change.mean(axis=1) if change.ndim == 4 else change  # (V,C,H,W) -> (V,H,W)
    highest = change.max(axis=(1, 2), keepdims=True)
    if not highest.any():
        return None
    return replace(data, maps=np.divide(change, highest, out=np.zeros_like(change), where=highest > 0))


def score(data: ValidationMaps, cut: Cut, steps: list[Step]) -> tuple[float, float]:
    """Mean IoU of the lesion slices and marked share of the healthy ones (NaN without any)."""
    masks = binarise(data.maps, cut, steps) & ~data.empty.reshape(-1, 1, 1)
    found, true = masks[data.scored], data.lesion[data.scored] > 0
    ious = (found & true).sum(axis=(1, 2)) / (found | true).sum(axis=(1, 2))
    return float(ious.mean()), float(masks[data.healthy].mean()) if data.healthy.any() else float("nan")


def best_single(data: ValidationMaps, steps: list[Step]) -> float:
    """Mean IoU of the lesion slices at the threshold that is best for them."""
    ious = iou_by_threshold(data.maps[data.scored], data.lesion[data.scored], THRESHOLDS, steps)  # (n,K)
    return float((ious * ~data.empty[data.scored][:, None]).mean(axis=0).max())


def compare(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One run's IoU and marked share of healthy slices: rules down (`best single threshold` first), methods across."""
    params = read_params(run / PARAMS_FILE)
    steps = value_at(params, "masks.morphology")
    ious: dict[str, dict[str, float]] = {}
    areas: dict[str, dict[str, float]] = {}
    for method in progress(list(value_at(params, "methods")), f"{run}"):
        data = read_validation(run, method)
        if not ious and (perfect := perfect_maps(run, data)) is not None:
            ious[CLEAN], _ = measure(perfect, steps)
        ious[method], areas[method] = measure(data, steps)
    return pd.DataFrame(ious), pd.DataFrame(areas)


def measure(data: ValidationMaps, steps: list[Step]) -> tuple[dict[str, float], dict[str, float]]:
    """IoU and marked share of healthy slices by every rule; first of the IoUs `best single threshold`."""
    cuts: dict[str, Cut] = {name_of(rule): fit_rule(rule, data.maps[data.healthy]) for rule in candidates()
                            if RULES[rule.rule].fit is None or data.healthy.any()}
    cuts |= {f"fixed {FIXED:g}": FIXED, "otsu of all maps": otsu(data.maps, np.arange(len(data.maps)))}
    scores = {name: score(data, cut, steps) for name, cut in cuts.items()}
    return ({"best single threshold": best_single(data, steps), **{name: s[0] for name, s in scores.items()}},
            {name: s[1] for name, s in scores.items()})


def summarise(ious: pd.DataFrame, controls: list[str]) -> pd.Series:
    """Each rule's score: mean over the methods of IoU / IoU of the best single threshold; methods that find nothing at
    any threshold are left out."""
    methods = ious.drop(columns=[*controls, CLEAN], errors="ignore")
    best = methods.iloc[0]
    return (methods.iloc[1:].loc[:, best > 0] / best[best > 0]).mean(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", type=Path, required=True, help="folders of finished runs")
    summaries, admitted = {}, [name_of(rule) for rule in candidates()]
    for run in parser.parse_args().runs:
        controls = value_at(read_params(run / PARAMS_FILE), "report.controls")
        ious, areas = compare(run)
        summaries[str(run)] = summarise(ious, controls)
        if CLEAN in ious:
            admitted = [name for name in admitted if ious.loc[name, CLEAN] >= LEAST_OF_CLEAN]
        shown = ious.assign(**{"FP healthy": areas.drop(columns=controls, errors="ignore").mean(axis=1),
                               "of best": summaries[str(run)]})
        print(f"\n{run}: mean IoU of the validation split's lesion slices\n{shown.to_string(float_format='%.3f')}")
    table = pd.DataFrame(summaries)
    table["mean"] = table.mean(axis=1, skipna=False)  # a rule that a data set can't have is none for all
    print(f"\nIoU over that of the best single threshold, mean over methods\n{table.to_string(float_format='%.3f')}")
    scores = table.loc[admitted]
    best = scores[scores["mean"].round(2) == scores["mean"].round(2).max()]
    print(f"\nchosen: {best[list(summaries)].min(axis=1).idxmax()}, of {', '.join(best.index)}")


if __name__ == "__main__":
    main()

"""One method's artifacts on the test split as a table with one row per case."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.clean import read_clean
from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import open_truth
from flipside.core.paths import CLEAN
from flipside.core.store import SliceStore
from flipside.metrics import localisation, saliency
from flipside.metrics import psnr as clean
from flipside.metrics.components import detect
from flipside.metrics.summary import (
    POLICIES,
    EvaluationError,
    change,
    confusion,
    cross_correlation,
    dice,
    difference_in_organ,
    iou,
    is_lesion_case,
    pixel_average_precision,
)
from flipside.metrics.surface import surface_distances

COLUMNS = [
    "method", "slice_id", "scan_id", "patient_id", "label",
    "organ_px",  # on the native grid
    "lesion_px",  # on the store's grid, which the masks have too
    "lesion_mm2",
    *(f"{metric}_{policy}" for policy in POLICIES for metric in ("iou", "dice")),  # lesion cases only
    *(f"iou_{policy}_raw" for policy in POLICIES),
    "pixel_ap", "ncc",  # map against lesion, no threshold
    "per", "per_raw",  # wrong pixels / all pixels, policy fixed
    "fp_area",  # wrongly marked pixels / all pixels, policy val
    # Lesion cases only, but for fp_components; policy val.
    "missed",  # 1: the mask is empty
    *localisation.SURFACE,
    "lesions", "lesions_detected",
    "fp_components",  # touch no lesion; empty where the lesion vanished in the resize
    *saliency.COLUMNS,
    "f_x", "f_x_cf", "judge_x", "judge_x_cf", "l1", "ssim",
    "perceptual_clf", "lpips",  # scan to counterfactual; lpips only where its weights were found
    "cycle_l1",  # scan to what a method makes of its counterfactual on the way back, where it has one
    *localisation.CHANGE,  # lesion cases only, whatever the classifier calls them
    *clean.COLUMNS,  # dB, against the slice before its synthetic anomaly
    "f_x_ab", "judge_x_ab",  # of the image made abnormal, where the method makes one
    # Of |x_ab - x_cf|, the slice made abnormal and made healthy: the share in the organ, whether the largest is there
    "added_in_organ", "added_peak_in_organ",
    "organ_area",  # organ pixels / all pixels, on the store's grid: what both would be by chance
]


@dataclass(frozen=True)
class TestSplit:
    """The cases that every method is measured on."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    store: SliceStore
    rows: np.ndarray  # (N,) positions in the store
    lesion: np.ndarray  # (N,H,W) uint8
    annotated: bool  # whether the data set has lesion masks at all
    spacing: np.ndarray  # (N,2) mm between rows and between columns

    @classmethod
    def open(cls) -> TestSplit:
        """From data/slices and data/truth; refuses truth of another shape, no test slice, and impossible spacing."""
        store = SliceStore.open("data/slices")
        truth = open_truth("data/truth", store.images.shape)
        rows = store.rows("test")
        if len(rows) == 0:
            raise EvaluationError("data/slices has no slice of the test split: give the data set more patients")
        index = store.index.iloc[rows]
        spacing = index[["spacing_row_mm", "spacing_col_mm"]].to_numpy(float)
        wrong = np.flatnonzero(~(np.isfinite(spacing) & (spacing > 0)).all(axis=1))
        if len(wrong):
            raise EvaluationError(f"data/slices/index.csv: spacing_row_mm and spacing_col_mm of "
                                  f"{index['slice_id'].iloc[wrong[0]]} are {spacing[wrong[0]].tolist()}, expected "
                                  f"numbers above 0 ({len(wrong)} slices): run `dvc repro extract_slices`")
        return cls(store, rows, truth[rows], any(lesion.any() for lesion in truth), spacing)

    @functools.cached_property
    def organ(self) -> np.ndarray:
        """(N,H,W) uint8."""
        return self.store.organ[self.rows]

    @functools.cached_property
    def clean(self) -> np.ndarray | None:
        """The slices (N,H,W) without what was simulated on them, where that is known."""
        return read_clean(CLEAN, self.store.index["slice_id"].iloc[self.rows])

    def table(self, method: str) -> pd.DataFrame:
        """The first columns of cases.csv; the others are empty."""
        index = self.store.index.iloc[self.rows].reset_index(drop=True)
        lesion_px = (self.lesion > 0).sum(axis=(1, 2))
        table = index.reindex(columns=COLUMNS).assign(method=method, lesion_px=lesion_px,
                                                      lesion_mm2=lesion_px * self.spacing.prod(axis=1))
        numbers = COLUMNS[COLUMNS.index("lesion_px") + 1:]
        return table.astype({name: float for name in numbers})


def measure(method: str, test: TestSplit, reference: str) -> tuple[pd.DataFrame, dict[str, float], dict]:
    """One method's cases (columns of cases.csv), its `iou_pooled_*`, and the timing of its explanations.

    reference: the method that the overlap of maps is measured with.
    """
    folder = Path("data/explanations") / method
    table = test.table(method)
    explanations, at = aligned(method, table)
    table[["f_x", "f_x_cf"]] = explanations.index[["f_x", "f_x_cf"]].to_numpy(float)[at]
    if table["f_x"].isna().any():
        raise EvaluationError(f"{folder}/index.csv lacks f_x of {table['f_x'].isna().sum()} test slices: "
                              f"run `dvc repro explain@{method}`")
    pooled = {}
    if test.annotated:
        pooled = add_mask_metrics(table, explanations, at, test, method)
        add_saliency_metrics(table, explanations, at, test, None if method == reference else reference)
    if explanations.counterfactual is not None:
        add_counterfactual_metrics(table, explanations, at, test, method)
    if explanations.abnormal is not None:
        add_abnormal_metrics(table, explanations, at, test, method)
    return table, pooled, explanations.timing


def aligned(method: str, table: pd.DataFrame) -> tuple[Explanations, np.ndarray]:
    """A method's explanations, and the row in them of each of the table's slices."""
    folder = Path("data/explanations") / method
    if not folder.is_dir():
        raise EvaluationError(f"{folder} not found, but `methods` in params.yaml names {method}: "
                              f"run `dvc repro explain@{method}`")
    explanations = Explanations.open(folder)
    return explanations, positions(explanations.index["slice_id"], table["slice_id"], f"{folder}/index.csv", method,
                                   "explain")


def positions(have: pd.Series, wanted: pd.Series, file: str, method: str, stage: str) -> np.ndarray:
    """Where each wanted slice stands among a file's slices; refuses a file with missing, unknown or repeated slices."""
    at = pd.Index(have).get_indexer(wanted) if have.is_unique else np.full(len(wanted), -1)
    if (at < 0).any():
        problem = (f"has {(at >= 0).sum()} of the {len(wanted)} test slices (first missing: {wanted[at < 0].iloc[0]})"
                   if have.is_unique else "names a slice twice")
        raise EvaluationError(f"method {method}: {file} {problem}, but all methods are compared on the same cases: "
                              f"run `dvc repro {stage}`")
    return at


def add_mask_metrics(table: pd.DataFrame, explanations: Explanations, at: np.ndarray, test: TestSplit,
                     method: str) -> dict[str, float]:
    """Fill all that is measured on masks, and the average precision; returns the pooled IoU, cleaned and raw."""
    folder = Path("data/masks") / method
    if not (folder / "thresholds.json").is_file():
        raise EvaluationError(f"{folder} not found or incomplete: run `dvc repro extract_masks@{method}`")
    slice_ids = pd.read_csv(folder / "index.csv", dtype={"slice_id": str})["slice_id"]
    if not slice_ids.equals(explanations.index["slice_id"]):
        raise EvaluationError(f"method {method}: the slices of {folder}/index.csv are not those of its explanations: "
                              f"run `dvc repro extract_masks@{method}`")
    lesion_cases = is_lesion_case(table).to_numpy()
    pixels = test.lesion.shape[1] * test.lesion.shape[2]
    pooled = {}
    for policy in POLICIES:
        masks = load_masks(folder, policy, at, test, method)
        tp, fp, fn = confusion(masks, test.lesion)
        raw = confusion(load_masks(folder, f"{policy}_raw", at, test, method), test.lesion)
        table.loc[lesion_cases, f"iou_{policy}"] = iou(tp, fp, fn)[lesion_cases]
        table.loc[lesion_cases, f"dice_{policy}"] = dice(tp, fp, fn)[lesion_cases]
        table.loc[lesion_cases, f"iou_{policy}_raw"] = iou(*raw)[lesion_cases]
        if policy == "fixed":
            table["per"], table["per_raw"] = (fp + fn) / pixels, (raw[1] + raw[2]) / pixels
        if policy == "val":
            table["fp_area"] = fp / pixels
            add_shape_metrics(table, masks, test)
        if lesion_cases.any():
            for name, counts in (("", (tp, fp, fn)), ("_raw", raw)):
                pooled[f"iou_pooled_{policy}{name}"] = float(iou(*(count[lesion_cases].sum() for count in counts)))
    maps = explanations.attribution[at[lesion_cases]]  # (n,H,W)
    table.loc[lesion_cases, "pixel_ap"] = pixel_average_precision(maps, test.lesion[lesion_cases])
    table.loc[lesion_cases, "ncc"] = cross_correlation(maps, test.lesion[lesion_cases])
    return pooled


def add_shape_metrics(table: pd.DataFrame, masks: np.ndarray, test: TestSplit) -> None:
    """Fill surface distances and lesion detection of masks (N,H,W)."""
    lesion_cases = is_lesion_case(table).to_numpy()
    table.loc[lesion_cases, "missed"] = 1.0 - masks[lesion_cases].any(axis=(1, 2))
    table.loc[lesion_cases, list(localisation.SURFACE)] = np.stack(surface_distances(
        masks[lesion_cases], test.lesion[lesion_cases], test.spacing[lesion_cases]), axis=1)
    lesions, detected, false = detect(masks, test.lesion)
    table.loc[lesion_cases, "lesions"], table.loc[lesion_cases, "lesions_detected"] = (
        lesions[lesion_cases], detected[lesion_cases])
    scored = lesion_cases | (table["label"] == 0).to_numpy()
    table.loc[scored, "fp_components"] = false[scored]


def add_saliency_metrics(table: pd.DataFrame, explanations: Explanations, at: np.ndarray, test: TestSplit,
                         reference: str | None) -> None:
    """Fill the measures of Major et al.; None for the reference method, whose overlap with itself says nothing."""
    lesion_cases = is_lesion_case(table).to_numpy()
    others = None
    if reference is not None:
        theirs, their_rows = aligned(reference, table)
        others = theirs.attribution[their_rows[lesion_cases]]
    measures = saliency.measure_saliency(
        explanations.attribution[at[lesion_cases]], test.lesion[lesion_cases], test.organ[lesion_cases],
        test.spacing[lesion_cases], others)
    table.loc[lesion_cases, list(measures)] = np.stack(list(measures.values()), axis=1)


def load_masks(folder: Path, name: str, at: np.ndarray, test: TestSplit, method: str) -> np.ndarray:
    """Masks (N,H,W) of the test cases."""
    file = folder / f"{name}.npy"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro extract_masks@{method}`")
    masks = np.load(file, mmap_mode="r")
    if masks.shape[1:] != test.lesion.shape[1:] or len(masks) <= at.max():
        raise EvaluationError(f"{file} {masks.shape} doesn't fit truth of {test.lesion.shape[1:]} pixels: "
                              f"run `dvc repro extract_masks@{method}`")
    return masks[at]


def add_counterfactual_metrics(table: pd.DataFrame, explanations: Explanations, at: np.ndarray, test: TestSplit,
                               method: str) -> None:
    """Fill the judge's probabilities, the perceptual distances, the change of the image and the cycle's error."""
    if table["f_x_cf"].isna().any():
        raise EvaluationError(f"data/explanations/{method}/index.csv lacks f_x_cf of {table['f_x_cf'].isna().sum()} "
                              f"test slices though there are counterfactuals: run `dvc repro explain@{method}`")
    table[["judge_x", "judge_x_cf"]] = of_test_slices("judgements", ["judge_x", "judge_x_cf"], table, method,
                                                      "judge_counterfactuals")
    if table[["judge_x", "judge_x_cf"]].isna().any(axis=None):
        raise EvaluationError(f"data/judgements/{method}.csv has empty values for a method with counterfactuals: "
                              "run `dvc repro judge_counterfactuals`")
    table[["perceptual_clf", "lpips"]] = of_test_slices("realism", ["perceptual_clf", "lpips"], table, method,
                                                        "measure_realism")
    if table["perceptual_clf"].isna().any() or table["lpips"].isna().nunique() > 1:
        raise EvaluationError(f"data/realism/{method}.csv lacks distances of some test slices: "
                              "run `dvc repro measure_realism`")
    images, counterfactuals = test.store.images[test.rows], explanations.counterfactual[at]
    table["l1"], table["ssim"] = change(images, counterfactuals)
    table["cycle_l1"] = explanations.index["cycle_l1"].to_numpy(float)[at]
    lesion_cases = is_lesion_case(table).to_numpy()
    changes = localisation.change_by_region(images[lesion_cases], counterfactuals[lesion_cases],
                                            test.lesion[lesion_cases], test.organ[lesion_cases])
    table.loc[lesion_cases, list(changes)] = np.stack(list(changes.values()), axis=1)
    if test.clean is not None:
        table["psnr_clean"] = clean.psnr(counterfactuals, test.clean)
        table["psnr_clean_unchanged"] = clean.psnr(images, test.clean)


def of_test_slices(folder: str, columns: list[str], table: pd.DataFrame, method: str, stage: str) -> np.ndarray:
    """Columns (N,len(columns)) float of data/<folder>/<method>.csv, which `stage` writes, for the table's slices."""
    file = Path("data") / folder / f"{method}.csv"
    if not file.is_file():
        raise EvaluationError(f"{file} not found: run `dvc repro {stage}`")
    found = pd.read_csv(file, dtype={"slice_id": str})
    at = positions(found["slice_id"], table["slice_id"], str(file), method, stage)
    return found[columns].to_numpy(float)[at]


def add_abnormal_metrics(table: pd.DataFrame, explanations: Explanations, at: np.ndarray, test: TestSplit,
                         method: str) -> None:
    """Fill what a method that also makes images abnormal reaches there, and where it puts the abnormality."""
    table["f_x_ab"] = explanations.index["f_x_ab"].to_numpy(float)[at]
    if table["f_x_ab"].isna().any():
        raise EvaluationError(f"data/explanations/{method}/index.csv lacks f_x_ab of {table['f_x_ab'].isna().sum()} "
                              f"test slices though there are images made abnormal: run `dvc repro explain@{method}`")
    table[["judge_x_ab"]] = of_test_slices("judgements", ["judge_x_ab"], table, method, "judge_counterfactuals")
    if table["judge_x_ab"].isna().any():
        raise EvaluationError(f"data/judgements/{method}.csv lacks judge_x_ab of {table['judge_x_ab'].isna().sum()} "
                              "test slices though there are images made abnormal: "
                              "run `dvc repro judge_counterfactuals`")
    table["organ_area"] = (test.organ > 0).mean(axis=(1, 2))
    table["added_in_organ"], table["added_peak_in_organ"] = difference_in_organ(
        explanations.abnormal[at], explanations.counterfactual[at], test.organ)

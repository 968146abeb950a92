"""What all methods are measured on, and one method's artifacts aligned with it."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.clean import read_clean
from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import open_truth
from flipside.core import paths
from flipside.core.index_tables import read_index
from flipside.core.packed_masks import Stack
from flipside.core.store import SliceStore
from flipside.masks.extraction.thresholds import HEADLINE, lesion_rows
from flipside.masks.method_masks import open_masks
from flipside.masks.volumes import VolumeParams
from flipside.metrics.evaluation import EvaluationError

# The first columns of cases.csv, which hold for every method alike.
CASE_COLUMNS = ["method", "slice_id", "scan_id", "patient_id", "label",
                "organ_px",  # on the native grid
                "lesion_px",  # on the store's grid, which the masks have too
                "lesion_mm2"]

# Columns of cases.csv that have a value in the same rows for every method.
SCORED = (f"iou_{HEADLINE}", "pixel_ap", "f_x")
SHARED = ("f_x", "judge_x")  # columns that say something of the slice, not of the method
ROUNDING = 1e-3  # the same classifier on another device answers this close
PART_PIXELS = 2**26  # of the slices that are measured at a time: two gigabytes with all that is made of them


@dataclass(frozen=True)
class TestSplit:
    """The cases that every method is measured on, or a part of them."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    store: SliceStore
    places: np.ndarray  # (N,) positions among all test slices
    rows: np.ndarray  # (N,) positions in the store
    truth: Stack  # lesion masks of all the store's slices
    annotated: bool  # whether the data set has lesion masks at all
    spacing: np.ndarray  # (N,2) mm between rows and between columns
    val_lesions: int  # lesion slices of the validation split, whose masks the policy val is chosen on

    @classmethod
    def open(cls) -> TestSplit:
        """From data/slices and data/truth; refuses truth of another shape, no test slice, and impossible spacing."""
        store = SliceStore.open("data/slices")
        truth = open_truth("data/truth", store.organ.shape)
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
        return cls(store, np.arange(len(rows)), rows, truth, any(lesion.any() for lesion in truth), spacing,
                   len(lesion_rows(truth, store.index, "val")))

    def parts(self) -> list[np.ndarray]:
        """The places (n,) of the cases of each part: whole scans, as many as fit into memory, in the order of the
        whole."""
        most, parts, left = PART_PIXELS // math.prod(self.store.sides), list[list[np.ndarray]](), 0
        scan_ids = self.store.index["scan_id"].to_numpy()[self.rows]
        for own in pd.Series(self.places).groupby(scan_ids, sort=False).indices.values():
            if not parts or len(own) > left:
                parts.append([])
                left = most
            parts[-1].append(own)
            left -= len(own)
        return [np.sort(np.concatenate(scans)) for scans in parts]

    def part(self, places: np.ndarray) -> TestSplit:
        """Some of the cases."""
        return replace(self, places=places, rows=self.rows[places], spacing=self.spacing[places])

    @functools.cached_property
    def lesion(self) -> np.ndarray:
        """(N,H,W) uint8."""
        return self.truth[self.rows]

    @functools.cached_property
    def organ(self) -> np.ndarray:
        """(N,H,W) uint8."""
        return self.store.organ[self.rows]

    @functools.cached_property
    def images(self) -> np.ndarray:
        """(N,H,W) float16 in [-1,1]."""
        return self.store.images[self.rows]

    @functools.cached_property
    def has_clean(self) -> bool:
        """Whether the data set's anomalies are synthetic, so that the slices are known without them."""
        return read_clean(paths.CLEAN, []) is not None

    @functools.cached_property
    def clean(self) -> np.ndarray | None:
        """The slices (N,H,W) without their synthetic anomalies, where they have such."""
        return read_clean(paths.CLEAN, self.store.index["slice_id"].iloc[self.rows])


class MethodArtifacts:
    """What earlier stages wrote of one method, aligned with the slices of the test split.

    model: the artifact that the method explains with (`methods.<method>.needs`); reference: those of the method that
    its maps are compared with, None for that method itself; strongly_supervised: whether a classifier of the run was
    shown lesion masks; volumes: how a scan's stack of masks is cleaned.
    Raises EvaluationError where the explanations are missing, or are not of exactly the test slices.
    """

    def __init__(self, method: str, test: TestSplit, model: str, reference: MethodArtifacts | None,
                 strongly_supervised: bool, volumes: VolumeParams) -> None:
        self.method, self.test, self.model, self.reference = method, test, model, reference
        self.strongly_supervised, self.volumes = strongly_supervised, volumes
        folder = Path("data/explanations") / method
        if not folder.is_dir():
            raise EvaluationError(f"{folder} not found, but `methods` in params.yaml names {method}: "
                                  f"run `dvc repro explain@{method}`")
        self.explanations = Explanations.open(folder)
        self.slice_ids = test.store.index["slice_id"].iloc[test.rows].reset_index(drop=True)
        # (N,) row in the explanations, and in the masks, of each test slice
        self.at = self.positions(self.explanations.index["slice_id"], f"{folder}/index.csv", f"explain@{method}")
        self._opened_masks: dict[str, Stack] = {}  # these two are shared by all parts
        self._opened_tables: dict[Path, pd.DataFrame] = {}

    def of_part(self, part: TestSplit) -> MethodArtifacts:
        """The same of a part of the test split."""
        artifacts = copy.copy(self)
        artifacts.test, artifacts.at = part, self.at[part.places]
        artifacts.reference = None if self.reference is None else self.reference.of_part(part)
        return artifacts

    def cases(self, columns: list[str]) -> pd.DataFrame:
        """The method's rows of cases.csv: CASE_COLUMNS, then `columns`, of which f_x is filled and the rest are NaN."""
        test = self.test
        index = test.store.index.iloc[test.rows].reset_index(drop=True)
        lesion_px = (test.lesion > 0).sum(axis=(1, 2))
        cases = index.reindex(columns=[*CASE_COLUMNS, *columns]).assign(
            method=self.method, lesion_px=lesion_px, lesion_mm2=lesion_px * test.spacing.prod(axis=1))
        cases = cases.astype(dict.fromkeys(["lesion_mm2", *columns], float))
        cases["f_x"] = self.answers("f_x")
        if cases["f_x"].isna().any():
            raise EvaluationError(f"data/explanations/{self.method}/index.csv lacks f_x of "
                                  f"{cases['f_x'].isna().sum()} test slices: run `dvc repro explain@{self.method}`")
        return cases

    def positions(self, have: pd.Series, file: str, stage: str) -> np.ndarray:
        """Where each test slice (N,) stands among a file's; refuses a file with missing or repeated slices."""
        wanted = self.slice_ids
        at = pd.Index(have).get_indexer(wanted) if have.is_unique else np.full(len(wanted), -1)
        if (at < 0).any():
            problem = (f"has {(at >= 0).sum()} of the {len(wanted)} test slices (first missing: "
                       f"{wanted[at < 0].iloc[0]})" if have.is_unique else "names a slice twice")
            raise EvaluationError(f"method {self.method}: {file} {problem}, but all methods are compared on the same "
                                  f"cases: run `dvc repro {stage}`")
        return at

    @property
    def makes_counterfactuals(self) -> bool:
        return self.explanations.counterfactual is not None

    @property
    def makes_abnormal(self) -> bool:
        """Whether the method also makes images abnormal."""
        return self.explanations.abnormal is not None

    @functools.cached_property
    def counterfactual(self) -> np.ndarray:
        """(N,H,W) float16 in [-1,1], of a method that makes counterfactuals."""
        assert self.explanations.counterfactual is not None
        return self.explanations.counterfactual[self.at]

    @property
    def signed_change(self) -> np.ndarray:
        """What to add to each test slice, with its sign: the method's own signed map, else x_cf - x. (N,H,W) or
        (N,C,H,W) float32 in [-2,2], of a method that makes counterfactuals."""
        if self.explanations.signed_map is not None:
            return self.explanations.signed_map[self.at].astype(np.float32)
        return self.counterfactual.astype(np.float32) - self.test.images

    @functools.cached_property
    def abnormal(self) -> np.ndarray:
        """(N,H,W) float16 in [-1,1], of a method that also makes images abnormal."""
        assert self.explanations.abnormal is not None
        return self.explanations.abnormal[self.at]

    def attribution(self, chosen: np.ndarray) -> np.ndarray:
        """Attribution maps (n,H,W) float16 in [0,1] of the n chosen (N,) bool test slices."""
        return self.explanations.attribution[self.at[chosen]]

    def answers(self, column: str) -> np.ndarray:
        """A column (N,) float of the explanations' index, such as f_x."""
        return self.explanations.index[column].to_numpy(float)[self.at]

    def masks(self, name: str) -> np.ndarray:
        """Masks (N,H,W) uint8 0/1 under a threshold policy, `<policy>` cleaned or `<policy>_raw`."""
        if name not in self._opened_masks:
            self._opened_masks[name] = open_masks(self.method, name, self.explanations, self.test.store)
        return self._opened_masks[name][self.at]

    def recorded(self, folder: str, columns: list[str], stage: str) -> np.ndarray:
        """Columns (N,len(columns)) float of data/<folder>/<method>.csv, which `stage` writes, of the test slices."""
        file = Path("data") / folder / f"{self.method}.csv"
        if not file.is_file():
            raise EvaluationError(f"{file} not found: run `dvc repro {stage}`")
        if file not in self._opened_tables:
            found = read_index(file)
            self._opened_tables[file] = found.iloc[self.positions(found["slice_id"], str(file), stage)]
        return self._opened_tables[file][columns].to_numpy(float)[self.test.places]


def check_same_cases(tables: dict[str, pd.DataFrame], reference: str) -> None:
    """Refuse methods that are scored on other cases than the reference, naming the first of them.

    tables: {method: rows of cases.csv}. What depends on the slice alone (f(x), the judge's answer to x) must agree too:
    the populations that follow from it are then the same for every method.
    """
    base = tables[reference]
    for method, cases in tables.items():
        for name in SCORED:
            scored, expected = cases[name].notna(), base[name].notna()
            if not (cases["slice_id"].equals(base["slice_id"]) and scored.equals(expected)):
                raise EvaluationError(f"method {method} has {name} on {scored.sum()} cases, {reference} on "
                                      f"{expected.sum()}, and they are not the same: "
                                      f"run `dvc repro extract_masks@{method}`")
        for name in SHARED:
            difference = (cases[name] - base[name]).abs()  # NaN where one of the two makes no counterfactual
            if (difference > ROUNDING).any():
                raise EvaluationError(f"method {method}: {name} of slice {cases['slice_id'][difference.idxmax()]} is "
                                      f"not that of {reference}: they are of different runs, run "
                                      f"`dvc repro explain@{method} judge_counterfactuals`")

"""Which extracted slices are kept, how they are labelled, and in which split each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pydantic

from flipside.cohort.duplicates import drop_copies
from flipside.cohort.extracted import Extracted, SelectionError
from flipside.cohort.splits import split_scans
from flipside.core.params import Params


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError(f"window must be [low, high] with low < high, found {list(bounds)}")
    return bounds


Bounds = Annotated[tuple[float, float], pydantic.AfterValidator(_rising)]


class FilterParams(Params):
    """Section `filter`."""

    min_organ_px: int = pydantic.Field(ge=0)
    """A slice is kept with strictly more organ pixels than this on its native grid."""
    window: Literal["auto", "per_scan", "fingerprint"] | Bounds | list[Bounds]
    """Intensities that become -1 and 1: [low, high] in the scan's units, or a list of them, one for each channel;
    `per_scan`, percentiles of each scan's own foreground; `fingerprint`, those of the training scans' pooled
    foreground; `auto`, the modality's: `ct_window` for CT, else `per_scan`. Foreground is the organ; without organ
    labels what is not air (other than CT: not the slice's darkest value)."""
    ct_window: Bounds
    """Window [low, high] in HU that `auto` takes for CT."""
    scan_percentiles: tuple[float, float]
    """Lower and upper percentile of a scan's own window, 0 to 100."""
    fingerprint_percentiles: tuple[float, float]
    """Lower and upper percentile of the fingerprint window, 0 to 100."""
    saturation_warning: float = pydantic.Field(gt=0, le=1)
    """Share of the scans' foreground that a window may turn into plain black or white before it is warned about."""
    saturation_limit: float = pydantic.Field(gt=0, le=1)
    """Share beyond which a window is refused, with a better one proposed; 1: never."""
    val_fraction: float = pydantic.Field(gt=0, lt=1)
    """Share of the patients that is for validation (with use_given_split: of the given training part's patients, unless
    a validation part is given); realised as one of about 1 / val_fraction folds."""
    test_fraction: float = pydantic.Field(gt=0, le=1)
    """Share of the patients that is for the test; unused with use_given_split. 1: every patient is test, as where
    trained models are applied."""
    use_given_split: bool
    """Whether the data set's own training, validation and test parts are kept; without a validation part it is taken
    from the training patients."""
    duplicate_distance: int = pydantic.Field(ge=0, le=128)
    """Largest Hamming distance, in bits of 256, of the perceptual hashes of two images that count as near-identical."""

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> FilterParams:
        for name, (low, high) in (("fingerprint_percentiles", self.fingerprint_percentiles),
                                  ("scan_percentiles", self.scan_percentiles)):
            if not 0 <= low < high <= 100:
                raise ValueError(f"{name} must rise within 0..100, found {[low, high]}")
        if self.test_fraction < 1 <= self.val_fraction + self.test_fraction:
            raise ValueError("val_fraction + test_fraction must leave something to train on (< 1); "
                             "test_fraction 1 alone makes everything test")
        if self.test_fraction == 1 and (self.use_given_split or self.window == "fingerprint"):
            raise ValueError("with test_fraction 1 there is no training part: window must be [low, high] and "
                             "use_given_split false")
        return self


@dataclass(frozen=True)
class Selection:
    """The slices of a study: where they are among the extracted ones, and what is known of them."""

    rows: np.ndarray  # (M,) positions among the extracted slices
    index: pd.DataFrame  # M rows: their columns, label, split, relative_height, source_slice_id and draw
    dropped_for_organ_area: int
    dropped: list[dict[str, str]]  # slice_id, source_file and reason of the copies that were left out
    duplicates: dict[str, Any]  # counts and members of identical and near-identical images, for the manifest
    left_out_patients: list[str]  # patients with an image of a given test or validation part


def select_slices(extracted: Extracted, params: FilterParams, seed: int) -> Selection:
    """Keep slices with enough organ, drop copies, label, and split by patient with near-identical images together.

    Raises SelectionError where no slice has enough organ, SplitError where the patients can't be split.
    """
    rows = np.flatnonzero(keep_by_organ(extracted.index, params.min_organ_px))
    labels = slice_labels(extracted.index.iloc[rows], extracted.manifest["lesion_threshold_px"])
    given_split = extracted.scans.set_index("scan_id")["given_split"]
    given = given_split.loc[extracted.index["scan_id"].iloc[rows]].to_numpy()
    copies = drop_copies(extracted.images, extracted.index.iloc[rows], rows, labels, given, params.duplicate_distance)
    kept = rows[copies.stay]
    index = extracted.index.iloc[kept].assign(label=labels[copies.stay])
    split_of, leaked = split_scans(index, extracted.scans, copies.groups, params.val_fraction, params.test_fraction,
                                   params.use_given_split, seed)
    index["split"] = index["patient_id"].map(split_of)  # the leaked patients have none
    dropped = copies.dropped + [
        {"slice_id": row.slice_id, "source_file": row.source_file,
         "reason": "near-identical to an image of a given test or validation part"}
        for row in index[index["split"].isna()].itertuples()]
    kept, index = kept[index["split"].notna()], index[index["split"].notna()].reset_index(drop=True)
    index = index.assign(relative_height=relative_height(index), source_slice_id=index["slice_id"], draw=0)
    return Selection(kept, index, len(extracted.index) - len(rows), dropped, copies.report, leaked)


def keep_by_organ(index: pd.DataFrame, min_organ_px: int) -> np.ndarray:
    """(N,) bool: strictly more than `min_organ_px` native organ pixels; -1 (no organ labels) always stays."""
    area = index["organ_px"].to_numpy()
    kept = (area > min_organ_px) | (area < 0)
    if not kept.any():
        raise SelectionError(f"no slice has more than filter.min_organ_px = {min_organ_px} organ pixels: {len(index)} "
                             f"slices looked at, largest organ area {area.max() if len(area) else 0}. Lower it, or "
                             "check the data set's organ labels")
    return kept


def slice_labels(index: pd.DataFrame, lesion_threshold_px: int) -> np.ndarray:
    """(N,) int: the class label where the data set gives one (0/1), else 1 iff the native lesion area > threshold."""
    given = index["class_label"].to_numpy()
    return np.where(given >= 0, given, index["lesion_px"].to_numpy() > lesion_threshold_px).astype(int)


def relative_height(index: pd.DataFrame) -> np.ndarray:
    """(N,) position of a slice among its scan's kept ones, 0 (lowest z) to 1 (highest); 0.5 where a scan keeps one.

    Pictures with a slice number are those of their patient's scan.
    """
    numbered = index["slice_number"].notna()
    z = index["slice_number"].where(numbered, index["z"]).astype(float)
    scans = z.groupby([numbered, index["patient_id"].where(numbered, index["scan_id"])])
    low, extent = scans.transform("min"), scans.transform("max") - scans.transform("min")
    return np.where(extent > 0, (z - low) / extent.where(extent > 0, 1), 0.5)

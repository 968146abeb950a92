"""What was prepared, on one sheet, before anybody trains: slices of each part and class, counts, values, warnings.

The lesions' contours are drawn from the truth for the reader's eye alone; nothing here is read by a later stage.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flipside.artifacts.truth import open_truth
from flipside.cohort.windowing import window_text
from flipside.core import paths
from flipside.core.files import read_json
from flipside.core.index_tables import read_index
from flipside.core.packed_masks import Stack
from flipside.core.store import SliceStore
from flipside.report.channels import shown_channels
from flipside.report.pictures import outlined

PICTURE, PAGE = Path("reports/contact_sheet.png"), Path("reports/contact_sheet.html")
ACROSS = 8  # slices of each part and class
MEASURED = 400  # slices of which the values are measured
DARK = -0.8  # below this all but the brightest hundredth of the values is as good as black
FEW = 10  # slices of a class of the validation or test part below which their numbers say little
CLASSES = ("healthy", "abnormal")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class ShownSlice:
    """A slice with what stands below it."""

    picture: np.ndarray  # (H,W,3) uint8, with the lesion's contour
    name: str  # the scan, and the slice in it
    size: str  # on its own grid


@dataclass(frozen=True)
class SheetRow:
    """Some slices of one part and class, and how many there are."""

    part: str
    kind: str  # healthy or abnormal
    slices: int
    patients: int
    shown: list[ShownSlice]


@dataclass(frozen=True)
class ContactSheet:
    """All that the sheet shows."""

    dataset: str
    rows: list[SheetRow]
    facts: dict[str, str]
    warnings: list[str]


def read_contact_sheet(seed: int) -> ContactSheet:
    """The sheet of the slices that stand in data/, a random choice by the seed."""
    store = SliceStore.open(paths.SLICES)
    index = store.index
    lesion = open_truth(paths.TRUTH, (len(index), *store.organ.shape[1:]))  # (N,H,W)
    extracted, filtered, slices = (read_json(f"{folder}/manifest.json")
                                   for folder in (paths.EXTRACTED, paths.FILTERED, paths.SLICES))
    generator = np.random.default_rng(seed)
    rows = []
    for part in PARTS:
        for label, kind in enumerate(CLASSES):
            here = store.rows(part, label)
            chosen = np.sort(generator.permutation(here)[:ACROSS])
            rows.append(SheetRow(part, kind, len(here), index["patient_id"].iloc[here].nunique(),
                                 [_shown(store, lesion, row, filtered["channels"]) for row in chosen]))
    values = _foreground_values(store, generator)
    sites = _count_by_site(index, read_index(f"{paths.EXTRACTED}/scans.csv"))
    with_lesion = np.array([bool(mask.any()) for mask in lesion])  # (N,)
    return ContactSheet(
        slices["dataset"], rows, _facts(store, extracted, filtered, values, with_lesion) | _site_facts(sites),
        [*dict.fromkeys([*filtered["warnings"], *slices["warnings"]]), *_left_out(extracted),
         *_site_warnings(sites), *_warnings(index, rows, values, slices["window"], with_lesion)])


def _shown(store: SliceStore, lesion: Stack, row: int, names: list[str]) -> ShownSlice:
    about = store.index.iloc[row]
    size = f"{about['native_cols']} x {about['native_rows']}"
    return ShownSlice(outlined(shown_channels(store.images[row], names), lesion[row]), about["slice_id"], size)


def _foreground_values(store: SliceStore, generator: np.random.Generator) -> np.ndarray:
    """Values (V,) of the organ's pixels in some slices; without organ labels, of all that is not at the lower end."""
    chosen = np.sort(generator.permutation(len(store.index))[:MEASURED])
    images, organ = np.asarray(store.images[chosen], np.float32), store.organ[chosen]
    inside = (organ > 0) & (images > -1) if images.ndim == 3 else ((organ > 0)[:, None] & (images > -1))
    return images[inside]


def _facts(store: SliceStore, extracted: dict[str, Any], filtered: dict[str, Any], values: np.ndarray,
           with_lesion: np.ndarray) -> dict[str, str]:
    """What the sheet says in words above the slices."""
    index, counts = store.index, extracted["counts"]
    sizes = Counter(f"{columns} x {rows}" for rows, columns in
                    zip(index["native_rows"], index["native_cols"], strict=True))
    rows, columns = store.organ.shape[1:]
    cut_off = filtered["saturation"]
    channels = "" if store.images.ndim == 3 else f", channels {', '.join(filtered['channels'])}"
    planes = ", ".join(f"{plane} ({count} scans)" for plane, count in extracted["planes"].items())
    return {
        "scans": f"{counts['scans']} read of {counts['found']}; {counts['patients']} patients; "
                 f"{counts['slices']} slices",
        "slices": f"{len(index)} of {columns} x {rows} pixels{channels}; {(index['label'] == 0).sum()} healthy, "
                  f"{(index['label'] == 1).sum()} abnormal, {with_lesion.sum()} with a lesion's mask",
        "own sizes": _most(sizes),
        "pixels": f"of {_spread(index['spacing_row_mm'])} mm in the slices below",
        "modality": extracted["modality"],
        **({"plane": planes} if (index["z"] > 0).any() else {}),
        "window": f"{window_text(filtered['window'])}; it cuts off {cut_off['black']:.1%} of the foreground below and "
                  f"{cut_off['white']:.1%} above",
        "values in the window": _percentiles(values),
        "copies": f"{len(filtered['dropped'])} slices left out as copies of others",
    }


def _count_by_site(index: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Slices of each class (columns 0 and 1) at each site; no row where the data set names no sites."""
    sites = index["scan_id"].map(scans.set_index("scan_id")["site"])
    counts = pd.crosstab(sites[sites != ""], index["label"])
    return counts.reindex(columns=range(len(CLASSES)), fill_value=0)


def _site_facts(sites: pd.DataFrame) -> dict[str, str]:
    told = ", ".join(f"{site} ({row[0]} healthy, {row[1]} abnormal)" for site, row in sites.iterrows())
    return {"sites": told} if told else {}


def _site_warnings(sites: pd.DataFrame) -> list[str]:
    one_class = sites.index[(sites == 0).any(axis=1)].tolist()
    if not one_class:
        return []
    return [f"{len(one_class)} of {len(sites)} sites have slices of one class only (first: {one_class[0]}): a "
            "classifier can tell the classes by how a site's scans look"]


def _percentiles(values: np.ndarray) -> str:
    if not len(values):
        return "none above the window's lower end"
    low, middle, high = (np.percentile(values, (1, 50, 99)) + 1) * 50
    return f"1st, 50th and 99th percentile at {low:.0f}, {middle:.0f} and {high:.0f} % of it"


def _spread(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if np.isclose(low, high, rtol=1e-2) else f"{low:.3g} to {high:.3g}"


def _most(sizes: Counter[str]) -> str:
    """The three commonest sizes and how many others there are."""
    shown = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
    return shown + (f", {len(sizes) - 3} others" if len(sizes) > 3 else "")


def _left_out(extracted: dict[str, Any]) -> list[str]:
    """A line for each reason for which scans were left out, with their number and the first of them."""
    by_reason: dict[str, list[str]] = {}
    for entry in extracted["left_out"]:
        by_reason.setdefault(entry["reason"], []).append(entry["file"])
    lines = [f"{len(files)} scans left out: {reason} ({files[0]}{' and others' if len(files) > 1 else ''})"
             for reason, files in by_reason.items()]
    if without := extracted["without_organ"]:
        lines.append(f"{len(without)} scans left out: no organ in any slice ({without[0]} …)")
    return lines


def _warnings(index: pd.DataFrame, rows: list[SheetRow], values: np.ndarray, window: Any, with_lesion: np.ndarray
              ) -> list[str]:
    """What a reader should look at before training."""
    found = [f"the {row.part} part has only {row.slices} {row.kind} slices of {row.patients} patients: its numbers "
             "will say little" for row in rows if row.part != "train" and 0 < row.slices < FEW]
    if (index["patient_id"] == index["scan_id"]).all():
        found.append("the data set names no patients, so every scan counts as a patient of its own: where several are "
                     "of one patient, name the patients, or training and test share them")
    if not len(values) or np.percentile(values, 99) < DARK:
        found.append(f"nearly all pixels lie at the lower end of the window ({window}): the slices are black")
    abnormal = (index["label"] == 1).to_numpy()
    unmasked = int((abnormal & ~with_lesion).sum())
    if with_lesion.any() and unmasked:
        found.append(f"{unmasked} of {abnormal.sum()} abnormal slices have no lesion in their mask at this size: they "
                     "are trained on, but in no measure of overlap")
    return found

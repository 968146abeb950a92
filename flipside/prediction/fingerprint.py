"""How bright the training scans are, to say of a new scan that its intensities are unlike theirs.

What counts is what the models see: places in the scan's window, 0 at its lower end, 1 at its upper end, beyond where
the window cuts off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flipside.cohort.windowing import finite_samples, window_of_new_scan
from flipside.core import paths
from flipside.core.files import read_json, write_json
from flipside.core.index_tables import read_index
from flipside.prediction.trained import WINDOW, TrainedRun

FILE = "fingerprint.json"  # of a bundle; a run's is measured on its data
PERCENTILES = (5, 25, 50, 75, 95)
LEAST_SHARE = 0.03  # of a body's foreground that is as bright as an organ in it
AIR_HU = -200.0  # air and lung are darker in every CT in Hounsfield units
MARGIN = 0.25  # of a usual scan's 5th to 95th percentile, beyond the range of the training scans


@dataclass(frozen=True)
class Fingerprint:
    """Percentiles of the foreground of the training scans, (V,P) of V volumes each, as places in the window."""

    lowest: np.ndarray
    highest: np.ndarray
    spread: np.ndarray  # (V,) a usual scan's 5th to 95th percentile

    @classmethod
    def of(cls, measured: np.ndarray) -> Fingerprint:
        """Of percentiles (S,V,P) of S scans."""
        return cls(measured.min(axis=0), measured.max(axis=0), np.median(measured[..., -1] - measured[..., 0], axis=0))

    @classmethod
    def read(cls, run: TrainedRun) -> Fingerprint | None:
        """A bundle's from its file, a run's from its data; None where the data are gone."""
        file = run.folder / FILE
        if file.is_file():
            content = read_json(file)
            return cls(*(np.array(content[name]) for name in ("lowest", "highest", "spread")))
        measured = list(_training_scans(run))
        return cls.of(np.stack(measured)) if measured else None

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, {"percentiles": PERCENTILES, **{name: getattr(self, name).tolist()
                                                                  for name in ("lowest", "highest", "spread")}})

    def unlike(self, measured: np.ndarray) -> str:
        """What of a scan's percentiles (V,P) lies beyond those of the training scans; "" where nothing does."""
        margin = MARGIN * self.spread[:, None]
        beyond = np.maximum(self.lowest - margin - measured, measured - self.highest - margin)  # (V,P)
        volume, place = np.unravel_index(int(beyond.argmax()), beyond.shape)
        if beyond[volume, place] <= 0:
            return ""
        low, high = 100 * self.lowest[volume, place], 100 * self.highest[volume, place]
        return (f"intensity unlike the training scans: percentile {PERCENTILES[place]} of the foreground lies at "
                f"{100 * measured[volume, place]:.0f} % of the window, in training at {low:.0f} to {high:.0f} %")


    def hardly_there(self, samples: np.ndarray, window: np.ndarray) -> str:
        """The same of a scan without organ labels, whose foreground is the whole body, where training scans were
        measured in an organ: "" unless hardly any pixel is as bright as those."""
        values = finite_samples(samples)
        low, high = window[: values.shape[1]].T
        places = (values - low) / (high - low)  # (S,V)
        share = float(((places >= self.lowest[:, 0]) & (places <= self.highest[:, -1])).mean(axis=0).min())
        if share >= LEAST_SHARE:
            return ""
        return (f"intensity unlike the training scans: only {share:.1%} of the foreground is as bright as the organ "
                "was in them")


def lacks_air(images: np.ndarray, window: np.ndarray) -> str:
    """That slices (N,...) given to models of CT are hardly CT in Hounsfield units: none of their pixels is as dark as
    air. "" where one is, and where the models' window (C,2) isn't in Hounsfield units either: it begins at 0."""
    darkest = float(np.nanmin(images))
    if window.min() >= 0 or darkest < AIR_HU:
        return ""
    return (f"no pixel is as dark as air: the lowest value is {darkest:.0f}, in Hounsfield units air lies near -1000. "
            "Is this CT, and are its values Hounsfield units?")


def measure(samples: np.ndarray, window: np.ndarray) -> np.ndarray | None:
    """Percentiles (V,P) of a scan's foreground samples (S,) or (S,V) as places in its window (C,2); None without
    any."""
    values = finite_samples(samples)
    if not len(values):
        return None
    low, high = window[: values.shape[1]].T  # (V,) each
    return np.percentile((values - low) / (high - low), PERCENTILES, axis=0).T


def _training_scans(run: TrainedRun) -> Iterator[np.ndarray]:
    """Percentiles (V,P) of each training scan that the extraction has sampled."""
    samples, index = run.folder / paths.EXTRACTED / "foreground.npz", run.folder / paths.FILTERED / "index.csv"
    if not samples.is_file() or not index.is_file():
        return
    windows = read_json(run.folder / WINDOW).get("windows_by_scan", {})
    table = read_index(index)
    with np.load(samples) as foreground:
        for scan in sorted(table.loc[table["split"] == "train", "scan_id"].unique()):
            if scan in foreground:
                window = windows.get(scan, run.window)
                found = measure(foreground[scan], window_of_new_scan(
                    window, scan, foreground[scan], run.filter.scan_percentiles, len(run.channels)))
                if found is not None:
                    yield found

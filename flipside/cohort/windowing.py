"""The intensity windows that map slices in their scans' units to [-1,1], and how much of a scan they cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flipside.cohort.extracted import Extracted, SelectionError
from flipside.cohort.selection import FilterParams
from flipside.core.progress import progress
from flipside.core.store import apply_window, as_channels

CHUNK = 256  # slices held in memory at once
PER_SCAN = "per_scan"
GIVE = "give filter.window as [low, high]"


@dataclass(frozen=True)
class Windows:
    """The window [low, high] of each scan and channel, in the scan's units."""

    described: str | list  # for manifests: [low, high], a list of them for several channels, or `per_scan`
    by_scan: dict[str, np.ndarray]  # {scan_id: (C,2)}

    @property
    def told(self) -> dict[str, list]:
        """{scan_id: [low, high] of each channel} for the manifest, where scans have windows of their own."""
        return {scan: window.tolist() for scan, window in self.by_scan.items()} if self.described == PER_SCAN else {}


def choose_windows(params: FilterParams, extracted: Extracted, index: pd.DataFrame) -> Windows:
    """The windows of the selected slices' scans; index: these slices, with scan_id and split.

    They rest on the foreground samples of the extraction, for which no lesion mask was read.
    """
    scans = list(index["scan_id"].unique())
    channels = as_channels(extracted.images).shape[1]
    rule: str | tuple | list = params.window
    if rule == "auto":
        rule = params.ct_window if extracted.manifest["modality"] == "ct" else PER_SCAN
    with np.load(extracted.folder / "foreground.npz") as foreground:
        if rule == PER_SCAN:
            found = {scan: scan_window(scan, _samples(foreground, scan), params.scan_percentiles) for scan in scans}
            return Windows(PER_SCAN, {scan: _for_channels(window, channels) for scan, window in found.items()})
        if rule == "fingerprint":
            training_scans = sorted(index.loc[index["split"] == "train", "scan_id"].unique())
            samples = {scan: _samples(foreground, scan) for scan in training_scans}
            volumes = [{scan: values[:, volume] for scan, values in samples.items()}
                       for volume in range(min(values.shape[1] for values in samples.values()))]
            window = np.array([fingerprint_window(volume, training_scans, params.fingerprint_percentiles)
                               for volume in volumes])
        else:
            window = np.array(rule, float).reshape(-1, 2)
            if len(window) not in (1, channels):
                raise SelectionError(f"filter.window lists {len(window)} windows, expected one or {channels}, one for "
                                     f"each of the channels {extracted.manifest['channels']}")
    window = _for_channels(window, channels)  # (C,2)
    described = window.tolist() if len(np.unique(window, axis=0)) > 1 else window[0].tolist()
    return Windows(described, dict.fromkeys(scans, window))


def _for_channels(window: np.ndarray, channels: int) -> np.ndarray:
    """(C,2) of the windows (V,2) of a scan's volumes, which neighbouring slices repeat."""
    return np.tile(window, (channels // len(window), 1))


def _samples(foreground: Mapping[str, np.ndarray], scan: str) -> np.ndarray:
    """(S,V) finite intensities of a scan's foreground, one column for each of its volumes."""
    if scan not in foreground:
        raise SelectionError(f"foreground.npz has no samples of scan {scan}: run `dvc repro extract_slices` again, or "
                             f"{GIVE}")
    return finite_samples(foreground[scan])


def finite_samples(values: np.ndarray) -> np.ndarray:
    """(S,V) of the foreground samples (S,) or (S,V) of a scan, without those that are NaN or infinite."""
    values = values if values.ndim > 1 else values[:, None]
    return values[np.isfinite(values).all(axis=1)]


def window_of_new_scan(described: str | list, scan: str, samples: np.ndarray, percentiles: tuple[float, float],
                       channels: int) -> np.ndarray:
    """(C,2) window of a scan that was in no study, made as a study's manifest describes its windows.

    samples (S,) or (S,V) of the scan's foreground, for windows of each scan's own. Raises SelectionError where these
    have one value only, or where the window is of another number of channels.
    """
    if described == PER_SCAN:
        window = scan_window(scan, finite_samples(samples), percentiles)
    else:
        window = np.array(described, float).reshape(-1, 2)
    if channels % len(window):
        raise SelectionError(f"scan {scan} has {channels} channels, the models were trained with {len(window)}")
    return _for_channels(window, channels)


def scan_window(scan: str, samples: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """(V,2) window of each volume of one scan: percentiles of its foreground samples (S,V).

    Raises SelectionError for a scan whose foreground has one value only, such as a blank picture.
    """
    if not len(samples):
        raise SelectionError(f"scan {scan} has no foreground to choose a window by: it is blank. Leave it out, or "
                             f"{GIVE}")
    window = np.percentile(samples, percentiles, axis=0).T.astype(float)  # (V,2)
    for volume, (low, high) in enumerate(window):
        if not low < high:
            raise SelectionError(f"scan {scan} has no window of its own: percentiles {list(percentiles)} of its "
                                 f"foreground are both {low:g}{f' in channel {volume}' if volume else ''}. Leave it "
                                 f"out, or {GIVE}")
    return window


def fingerprint_window(foreground: Mapping[str, np.ndarray], training_scans: list[str],
                       percentiles: tuple[float, float]) -> tuple[float, float]:
    """Window [low, high] in the scan's units: percentiles of the training scans' pooled foreground samples.

    The percentiles of nnU-Net's data fingerprint (Isensee et al. 2021), on which COIN windows its CT. Only training
    scans count, so nothing of the test scans enters the images.
    """
    pooled = np.concatenate([_samples(foreground, scan) for scan in training_scans])
    if not len(pooled):
        raise SelectionError(f"{len(training_scans)} training scans have no foreground sample: {GIVE}")
    low, high = (float(value) for value in np.percentile(pooled, percentiles))
    if not low < high:
        raise SelectionError(f"the fingerprint window is empty: percentiles {list(percentiles)} are {low:g} and "
                             f"{high:g}: {GIVE}")
    return low, high


def measure_saturation(params: FilterParams, extracted: Extracted, windows: Windows) -> tuple[dict, list[str]]:
    """The share of the scans' foreground that the windows cut off, for the manifest, and warnings about it.

    Strictly below low is black, strictly above high white. Every scan counts alike; of several channels the worst
    counts. Raises SelectionError beyond `saturation_limit`, with a window that would fit.
    """
    shares: dict[str, np.ndarray] = {}  # {scan: (C,2): black, white}
    fitting = []
    with np.load(extracted.folder / "foreground.npz") as foreground:
        for scan, window in windows.by_scan.items():
            samples = _samples(foreground, scan)
            if len(samples):
                values = np.tile(samples, len(window) // samples.shape[1])  # (S,C)
                shares[scan] = np.stack([(values < window[:, 0]).mean(axis=0), (values > window[:, 1]).mean(axis=0)], 1)
                fitting.append(np.percentile(values, params.scan_percentiles, axis=0).T)  # (C,2)
    if not shares:
        return {"black": 0.0, "white": 0.0, "channel": extracted.manifest["channels"][0], "scans": []}, []
    mean = np.mean(list(shares.values()), axis=0)  # (C,2)
    worst = int(mean.sum(axis=1).argmax())
    black, white = mean[worst]
    beyond = [scan for scan, share in shares.items() if share.sum(axis=1).max() > params.saturation_limit]
    name, window = extracted.manifest["channels"][worst], next(iter(windows.by_scan.values()))[worst]
    found = {"black": float(black), "white": float(white), "channel": name, "scans": beyond}
    better = np.median([bounds[worst] for bounds in fitting], axis=0)
    text = (f"the window {_short(windows.described, window)} turns {white:.0%} of what the scans show into plain white "
            f"and {black:.0%} into plain black{f' (channel {name})' if len(mean) > 1 else ''}")
    proposal = f"set filter.window to per_scan, or to [{better[0]:.4g}, {better[1]:.4g}], which would fit half of them"
    if black + white > params.saturation_limit:
        raise SelectionError(f"{text}, expected at most {params.saturation_limit:.0%} (filter.saturation_limit): "
                             f"{proposal}")
    if black + white > params.saturation_warning:
        return found, [f"{text}: {proposal}"]
    if beyond:
        return found, [f"the window {_short(windows.described, window)} turns more than {params.saturation_limit:.0%} "
                       f"of {len(beyond)} scans into plain black or white (first: {beyond[0]}): look at them, or set "
                       "filter.window to per_scan"]
    return found, []


def _short(described: str | list, window: np.ndarray) -> str:
    return "of each scan" if described == PER_SCAN else f"[{window[0]:g}, {window[1]:g}]"


def window_text(described: str | list) -> str:
    """A manifest's `window` for readers."""
    if isinstance(described, str):
        return "of each scan's own percentiles"
    pairs = described if isinstance(described[0], list) else [described]
    return ", ".join(f"{low:g} to {high:g}" for low, high in pairs)


def window_slices(extracted: Extracted, rows: np.ndarray, windows: Windows,
                  out: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Fill `out`, which is images (M,H,W) or (M,C,H,W) float16, organ and lesion (M,H,W) uint8, with the kept rows by
    chunks."""
    images, organ, lesion = out
    names = extracted.index["scan_id"].to_numpy()
    for start in progress(range(0, len(rows), CHUNK), "windowing", total=-(-len(rows) // CHUNK)):
        part = rows[start : start + CHUNK]
        here = slice(start, start + len(part))
        borders = np.flatnonzero(names[part][1:] != names[part][:-1]) + 1  # where another scan begins
        images[here] = np.concatenate([_in_window(extracted.images[own], names[own[0]], windows, extracted)
                                       for own in np.split(part, borders)])
        bad = ~np.isfinite(images[here]).reshape(len(part), -1).all(axis=1)
        if bad.any():
            name = extracted.index["slice_id"].iloc[part[int(np.argmax(bad))]]
            raise SelectionError(f"{extracted.folder}/images.npy: slice {name} holds NaN; check its source file")
        organ[here], lesion[here] = extracted.organ[part], extracted.lesion[part]


def _in_window(images: np.ndarray, scan: str, windows: Windows, extracted: Extracted) -> np.ndarray:
    """Slices (K,H,W) or (K,C,H,W) of one scan, in its units, as float16 in [-1,1]."""
    return show_in_window(images, windows.by_scan[scan], extracted.boxes[scan])


def show_in_window(images: np.ndarray, window: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Slices (K,H,W) or (K,C,H,W) in their scan's units as float16 in [-1,1], by its window (C,2); the padding around
    the box that shows the scan is -1."""
    channels = as_channels(images)  # (K,C,H,W)
    shown = np.full(channels.shape, -1, np.float16)
    rows, columns = box
    for channel, (low, high) in enumerate(window.tolist()):
        shown[:, channel, rows, columns] = apply_window(channels[:, channel, rows, columns], (low, high))
    return shown.reshape(images.shape)


def window_clean(extracted: Extracted, rows: np.ndarray, windows: Windows) -> Iterator[np.ndarray]:
    """The clean images (H,W) float16 in [-1,1] of some extracted slices that have such."""
    clean, names = extracted.clean, extracted.index["scan_id"].to_numpy()
    if clean is not None:
        yield from (_in_window(clean[row][None], names[row], windows, extracted)[0] for row in rows)

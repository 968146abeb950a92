"""One new scan as the models see it: cut, windowed and resized as the run's own scans were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flipside.cohort.selection import keep_by_organ
from flipside.cohort.slicing import slice_scan
from flipside.cohort.windowing import show_in_window, window_of_new_scan
from flipside.core.store import as_channels
from flipside.prediction.finding import NewScan
from flipside.prediction.fingerprint import Fingerprint, lacks_air, measure
from flipside.prediction.trained import Explained, TrainedRun
from flipside.scans.dicom_header import Header
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan


@dataclass
class PreparedScan:
    """A scan with its K slices, and what is found about them batch by batch."""

    new: NewScan
    scan: Scan  # cut in the run's plane, on its own grid
    images: np.ndarray  # (K,C,H,W) float16 in [-1,1]
    organ: np.ndarray  # (K,H,W) uint8
    z: np.ndarray  # (K,) their numbers in the scan
    window: np.ndarray  # (V,2) of each of the scan's own volumes, in the scan's units
    own: slice  # of the channels: the slice itself, without its neighbours
    warnings: list[str]
    frames: Callable[[], Sequence[Header]] | None  # of a DICOM scan
    taken: int = 0  # slices that went into a batch
    answers: list[Explained] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Slices that are in no batch yet."""
        return len(self.z) - self.taken

    @property
    def is_explained(self) -> bool:
        return sum(len(answer.probability) for answer in self.answers) == len(self.z)

    @property
    def probability(self) -> np.ndarray:
        """(K,) of abnormal."""
        return np.concatenate([answer.probability for answer in self.answers])

    @property
    def attribution(self) -> np.ndarray:
        """(K,H,W) float16 in [0,1]."""
        return np.concatenate([answer.attribution for answer in self.answers])

    @property
    def change(self) -> np.ndarray | None:
        """(K,V,H,W) float32: counterfactual minus slice, of the scan's own volumes; None without counterfactuals."""
        made = [answer.counterfactual for answer in self.answers if answer.counterfactual is not None]
        if not made:
            return None
        return np.concatenate(made)[:, self.own].astype(np.float32) - self.images[:, self.own].astype(np.float32)


def prepare(new: NewScan, run: TrainedRun, fingerprint: Fingerprint | None) -> PreparedScan:
    """Read a scan and make slices of it, as the extraction and the preparation of the run do.

    Raises ReadError for what can't be read right or has other channels than the models, SelectionError for a scan
    without the organ or without anything in it.
    """
    read = new.read()
    scan = replace(read.scan, scan_id=new.name, lesion=None, clean=None).in_plane(run.block.plane)
    if len(scan.channels) != run.volumes:
        names = run.block.volume_names(run.volumes)
        raise ReadError(new.file, f"has {len(scan.channels)} channel{'s' * (len(scan.channels) > 1)}, the models were "
                        f"trained on {run.volumes} ({', '.join(names)})", "Name them in a table, one column each")
    slices = slice_scan(scan, run.block.modality, run.image_size, run.extract.foreground_samples, run.block.context)
    if not slices.index:
        raise ReadError(new.file, "has no organ in any slice", "Check its organ labels")
    index = pd.DataFrame(slices.index)
    kept = np.flatnonzero(keep_by_organ(index, run.filter.min_organ_px))
    window = window_of_new_scan(run.window, new.name, slices.foreground, run.filter.scan_percentiles,
                                len(run.channels))  # (C,2)
    geometry = scan.volume.geometry
    box = geometry.content_box((slices.images.shape[-2], slices.images.shape[-1]))
    warnings = list(read.warnings)
    without_organ = run.organ_expected and scan.organ is None
    if without_organ:
        warnings.append("no organ labels: every slice is explained, the models learnt from slices with the organ")
    measured = None if fingerprint is None else measure(slices.foreground, window)
    if fingerprint is not None and measured is not None:
        unlike = (fingerprint.hardly_there(slices.foreground, window) if without_organ
                  else fingerprint.unlike(measured))
        warnings += [unlike] if unlike else []
    if run.block.modality == "ct" and (airless := lacks_air(slices.images, window)):
        warnings.append(airless)
    images = as_channels(show_in_window(slices.images, window, box))
    own = slice(run.block.context * run.volumes, (run.block.context + 1) * run.volumes)
    return PreparedScan(new, scan, images[kept], slices.organ[kept], index["z"].to_numpy()[kept], window[own], own,
                        warnings, read.frames)

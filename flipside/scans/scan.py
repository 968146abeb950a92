"""One scan of a data set in memory: its slices, its masks, whose it is and what its data set says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flipside.scans.labels import Mask
from flipside.scans.readers import Volume

UNLABELLED = -1  # class label of a scan whose data set has no labels of whole images


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan or image in memory; slices are numbered from the lowest."""

    scan_id: str
    patient_id: str
    source_file: str  # relative to the data set's root, without a patient's name
    channels: tuple[Volume, ...]  # registered on one grid; the first is the reference
    spacing_mm: tuple[float, float, float]  # row, column, between slices; 1 mm between the slices of an image
    organ: Mask | Literal["nonzero"] | None = None  # None: the data set has no organ labels
    lesion: Mask | None = None
    class_label: int = UNLABELLED  # 0 healthy, 1 abnormal
    given_split: str = ""  # train or test, where the data set brings its own split
    image_digest: str = ""  # sha256 of an image's file; "" for a volume
    clean: Volume | None = None  # a simulated scan without what was simulated on it, on the same grid

    @property
    def volume(self) -> Volume:
        """The reference: the first channel."""
        return self.channels[0]

    def image_slice(self, z: int) -> np.ndarray:
        """(C,R,C') float32 of slice z, a plane per channel, in the scan's own units."""
        return np.stack([channel.slice(z) for channel in self.channels])

    def organ_slice(self, z: int) -> np.ndarray | None:
        """(R,C) bool, or None without organ labels."""
        if self.organ is None:
            return None
        return self.volume.slice(z) != 0 if self.organ == "nonzero" else self.organ.slice(z)

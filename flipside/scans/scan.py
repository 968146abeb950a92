"""One scan of a data set in memory: its slices, its masks, whose it is and what its data set says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flipside.scans.geometry import Plane, from_slices, to_slices
from flipside.scans.labels import Mask
from flipside.scans.pixels import gather
from flipside.scans.readers import Volume

UNLABELLED = -1  # class label of a scan whose data set has no labels of whole images


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan or image in memory, in axial slices numbered from the lowest, or as `in_plane` cuts it."""

    scan_id: str
    patient_id: str
    source_file: str  # relative to the data set's root, without a patient's name
    channels: tuple[Volume, ...]  # registered on one grid; the first is the reference
    spacing_mm: tuple[float, float, float]  # row, column, between slices; 1 mm between the slices of an image
    organ: Mask | Literal["nonzero"] | None = None  # None: the data set has no organ labels
    lesion: Mask | None = None
    class_label: int = UNLABELLED  # 0 healthy, 1 abnormal
    given_split: str = ""  # train or test, where the data set brings its own split
    site: str = ""  # where it was taken, as the data set names it
    slice_number: int | None = None  # of an image that is a slice of the patient's scan, where the data set tells it
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

    def in_plane(self, plane: Plane | Literal["native"]) -> Scan:
        """The scan with its masks cut in a plane; its geometry knows the plane, and of an image the pixel's size.

        `native`: across the longest side of a voxel. An image stays as it is.
        """
        before = self.volume.geometry
        if before.is_image:
            after = replace(before, pixel_mm=self.spacing_mm[:2])
        else:
            after = replace(before, plane=before.native_plane if plane == "native" else plane)

        def turned(slices: np.ndarray) -> np.ndarray:
            return gather(to_slices(from_slices(slices, before), after)) if after.plane != before.plane else slices

        def volume(old: Volume) -> Volume:
            return replace(old, stored=turned(old.stored), geometry=after)

        def mask(old: Mask) -> Mask:
            return Mask(tuple((turned(labels), values) for labels, values in old.layers))

        return replace(
            self, channels=tuple(volume(channel) for channel in self.channels), spacing_mm=after.slice_spacing_mm,
            organ=mask(self.organ) if isinstance(self.organ, Mask) else self.organ,
            lesion=None if self.lesion is None else mask(self.lesion),
            clean=None if self.clean is None else volume(self.clean))

"""What the scans of a block hold, read from a sample of them with the block's own layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pydicom

from flipside.cli.proposals.survey import Survey
from flipside.scans.layout import FoundScan, Layout
from flipside.scans.readers import ReadError
from flipside.scans.scan import Scan

SAMPLE = 20  # scans that are read
AIR_HU = -500.0  # values below this are Hounsfield units
MODALITIES = {"CT": "ct", "MR": "mr", "MG": "mammography", "CR": "xray", "DX": "xray", "US": "ultrasound"}


@dataclass
class Description:
    """What a sample of scans holds."""

    sizes: Counter[str] = field(default_factory=Counter)
    spacings: Counter[str] = field(default_factory=Counter)
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    failed: list[ReadError] = field(default_factory=list)

    def in_words(self) -> list[tuple[str, str]]:
        """Lines of a name and what there is."""
        values = "none could be read"
        if self.lows:
            values = (f"{min(self.lows):g} to {max(self.highs):g}; a scan's own: {_range(self.lows)} to "
                      f"{_range(self.highs)}")
        return [("sizes", _commonest(self.sizes)), ("spacings", _commonest(self.spacings)), ("values", values)]


def describe(layout: Layout, found: Sequence[FoundScan]) -> Description:
    """Read a sample, evenly over all scans that have a label."""
    labelled = [scan for scan in found if scan.class_label is not None]
    description = Description()
    for scan in labelled[:: max(1, -(-len(labelled) // SAMPLE))]:
        try:
            _add(description, layout.read_scan(scan, "not written anywhere"))
        except ReadError as error:
            description.failed.append(error)
    return description


def _add(description: Description, scan: Scan) -> None:
    """Sizes and values of a scan, of a volume those of its middle slice."""
    rows, columns = scan.volume.stored.shape[1:]
    depth = len(scan.volume.stored)
    shape = f"{columns} x {rows}" + ("" if scan.volume.geometry.is_image else f" x {depth}")
    height, width, between = scan.spacing_mm
    description.sizes[shape + (f", {len(scan.channels)} channels" if len(scan.channels) > 1 else "")] += 1
    description.spacings[f"{width:.3g} x {height:.3g}" + ("" if scan.volume.geometry.is_image else f" x {between:.3g}")
                         + " mm"] += 1
    values = scan.volume.slice(depth // 2)
    description.lows.append(float(np.nanmin(values)))
    description.highs.append(float(np.nanmax(values)))


def guess_modality(survey: Survey, description: Description) -> tuple[str, str]:
    """The modality, and what speaks for it."""
    if survey.dicom:
        kinds = set()
        for path in survey.dicom[:: max(1, len(survey.dicom) // SAMPLE)]:
            header = pydicom.dcmread(survey.folder / path, stop_before_pixels=True, force=True)
            kinds.add(str(header.get("Modality") or "nothing"))
        if len(kinds) == 1 and (kind := MODALITIES.get(min(kinds))):
            return kind, f"the DICOM headers say {min(kinds)}"
    if description.lows and min(description.lows) < AIR_HU:
        return "ct", f"values down to {min(description.lows):g} are Hounsfield units"
    if survey.volumes and not survey.pictures:
        return "mr", "volumes without Hounsfield units"
    return "other", "grey values, which don't tell; set mr, xray, mammography or ultrasound where you know it"


def _commonest(counts: Counter[str]) -> str:
    if not counts:
        return "none could be read"
    shown = ", ".join(f"{text} ({count})" for text, count in counts.most_common(3))
    return shown + (f" and {len(counts) - 3} others" if len(counts) > 3 else "")


def _range(values: list[float]) -> str:
    return f"{min(values):g}" if min(values) == max(values) else f"{min(values):g}…{max(values):g}"

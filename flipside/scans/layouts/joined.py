"""Several data sets as one, such as those of several hospitals: each part has a layout of its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pydantic

from flipside.scans.layout import DatasetError, FoundScan, Layout, LeftOut
from flipside.scans.scan import Scan

OF_THE_WHOLE = ("root", "modality", "anomalies", "lesion_threshold_px", "plane", "context")  # keys that no part has


@dataclass(frozen=True, kw_only=True)
class ScanOfPart(FoundScan):
    """A scan with the part that it is in."""

    part: str
    scan: FoundScan  # as the part's layout found it


class Joined(Layout):
    layout: Literal["joined"]
    parts: dict[str, dict[str, Any]] = pydantic.Field(min_length=2)
    """Name of each part -> its block. A part's root is the folder of its name below the root; `modality`, `plane` and
    the like are said once, for all parts. Names of scans and patients begin with the part's, and a scan's site is the
    part, where that doesn't name one."""

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> Joined:
        for name, block in self.parts.items():
            if said := [key for key in OF_THE_WHOLE if key in block]:
                raise ValueError(f"`parts.{name}.{said[0]}` belongs beside `parts`: it is the same for all of them")
        _ = self.layouts  # refuses a part that is no data set
        return self

    @functools.cached_property
    def layouts(self) -> dict[str, Layout]:
        """Each part's layout."""
        from flipside.scans.layouts import DatasetParams  # which imports this file

        shared = {key: getattr(self, key) for key in OF_THE_WHOLE if key != "root"}
        found: dict[str, Layout] = {}
        for name, block in self.parts.items():
            try:
                found[name] = DatasetParams.model_validate(
                    {"page": self.page, **block, **shared, "root": f"{self.root}/{name}"},
                    context={"part": True}).root
            except pydantic.ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"]))
                raise ValueError(f"`parts.{name}` is no data set: {key}: {first['msg']}") from None
        return found

    def find_scans(self, dataset: str) -> list[FoundScan]:
        return self.find_scans_and_others(dataset)[0]

    def find_scans_and_others(self, dataset: str) -> tuple[list[FoundScan], list[LeftOut]]:
        self.existing_root(dataset)
        found: list[FoundScan] = []
        others: list[LeftOut] = []
        for part, layout in self.layouts.items():
            scans, rest = layout.find_scans_and_others(f"{dataset}.parts.{part}")
            found += [_in_part(part, scan) for scan in scans]
            others += [LeftOut(_in_part(part, scan), reason) for scan, reason in rest]
        self.refuse_equal_names(dataset, found)
        return found, others

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        assert isinstance(found, ScanOfPart)
        scan = self.layouts[found.part].read_scan(found.scan, salt)
        return replace(scan, scan_id=f"{found.part}_{scan.scan_id}", patient_id=f"{found.part}_{scan.patient_id}",
                       source_file=f"{found.part}/{scan.source_file}", site=scan.site or found.part)

    def identifying_words(self, found: FoundScan) -> Sequence[str]:
        assert isinstance(found, ScanOfPart)
        return self.layouts[found.part].identifying_words(found.scan)

    def volume_names(self, volumes: int) -> list[str]:
        names = {part: layout.volume_names(volumes) for part, layout in self.layouts.items()}
        first = next(iter(names))
        for part, own in names.items():
            if own != names[first]:
                raise DatasetError(f"{self.root}: the channels of {part} are {own}, those of {first} {names[first]}: "
                                   "join sets with the same channels")
        return names[first]

    @property
    def has_clean_images(self) -> bool:
        return all(layout.has_clean_images for layout in self.layouts.values())


def _in_part(part: str, scan: FoundScan) -> ScanOfPart:
    return ScanOfPart(f"{part}_{scan.name}", scan.path, scan.case, scan.class_label, scan.given_split,
                      f"{part}_{scan.patient}" if scan.patient else "", part=part, scan=scan)

"""What lies in a folder: files by their kind."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydicom.misc import is_dicom

from flipside.scans.endings import DICOM, NIFTI, PICTURES, TABLES


@dataclass
class Survey:
    """Paths below a folder, sorted, by kind."""

    folder: Path
    tables: list[PurePosixPath] = field(default_factory=list)
    pictures: list[PurePosixPath] = field(default_factory=list)
    volumes: list[PurePosixPath] = field(default_factory=list)  # NIfTI
    dicom: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)

    def in_words(self) -> str:
        """How many files of which kind, with the endings of those that are of no use."""
        kinds = [(self.volumes, "NIfTI"), (self.dicom, "DICOM"), (self.pictures, "picture"), (self.tables, "table")]
        parts = [f"{len(files)} {name} files" for files, name in kinds if files]
        if self.others:
            endings = Counter(path.suffix or "no ending" for path in self.others).most_common(3)
            parts.append(f"{len(self.others)} other files ({', '.join(f'{count} {end}' for end, count in endings)})")
        return ", ".join(parts) or "no file"


def look_at(folder: Path) -> Survey:
    """All files below a folder, also behind links, but for hidden ones."""
    found = Survey(folder)
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(here, name)
                _list_of(found, path).append(PurePosixPath(path.relative_to(folder).as_posix()))
    return found


def bare(name: str) -> str:
    """A file's name without its ending, .nii.gz taken as one."""
    lower = name.lower()
    ending = next((end for end in (*NIFTI, *PICTURES, *DICOM) if lower.endswith(end)), "")
    return name[: len(name) - len(ending)] if ending else name


def _list_of(found: Survey, path: Path) -> list[PurePosixPath]:
    name = path.name.lower()
    if name.endswith(NIFTI):
        return found.volumes
    if name.endswith(PICTURES):
        return found.pictures
    if name.endswith(TABLES):
        return found.tables
    return found.dicom if name.endswith(DICOM) or is_dicom(path) else found.others

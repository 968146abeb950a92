"""What the layouts of pictures have in common: colour, and files that are among the images but are none."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path

from flipside.core.store import RGB
from flipside.scans.layout import DatasetError, Layout
from flipside.scans.patterns import compile_pattern, labels_of_others, masks_among
from flipside.scans.pictures import ColourMode


class PictureLayout(Layout, abc.ABC):
    colour: ColourMode = "grey"
    """`grey`: one channel, the luma of a colour picture (ITU-R BT.601); `rgb`: three channels, all equal where a
    picture is grey."""
    leave_out: list[str] = []
    """Patterns of files that match `image` but are none, such as `{case}_mask*.png`."""

    def volume_names(self, volumes: int) -> list[str]:
        return [*RGB] if self.colour == "rgb" else super().volume_names(volumes)

    def mask_patterns(self) -> Sequence[str]:
        """Patterns of the masks that the block names: no image is one of them."""
        return ()

    def match_files(self, dataset: str, pattern: str, names: Mapping[str, Sequence[str]] | None = None,
                    folders: bool = False) -> list[tuple[Path, dict[str, str]]]:
        """Images that match the pattern; a file beside an image that is its mask is left out where `leave_out` or the
        block's masks name it. Raises DatasetError where it only looks like one by its name."""
        matches = super().match_files(dataset, pattern, names, folders)
        given = [compile_pattern(each, names or {}) for each in self.leave_out]
        files = {path.relative_to(self.root).as_posix(): (path, groups) for path, groups in matches}
        masks = labels_of_others({file: groups["case"] for file, (_, groups) in files.items()}, self.mask_patterns())
        kept = [match for file, match in files.items()
                if file not in masks and not any(each.fullmatch(file) for each in given)]
        if not kept:
            raise DatasetError(f"{Path(self.root)}: all {len(matches)} files that match {pattern!r} are left out by "
                               f"datasets.{dataset}.leave_out or are masks. Correct the patterns")
        pairs = masks_among([path for path, _ in kept])
        if pairs:
            mask, image = (self.relative(path) for path in pairs[0])
            raise DatasetError(f"{Path(self.root)}: {len(pairs)} of {len(kept)} files that match {pattern!r} seem to "
                               f"be masks, not images: {mask} beside {image}. Name them in "
                               f"datasets.{dataset}.leave_out")
        return kept

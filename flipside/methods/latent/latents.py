"""The blobs of inverted slices on disk: one safetensors file per split, beside the generator that draws them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flipside.core.checkpoint import MODEL_FILES, read_description
from flipside.core.files import atomic_folder, read_json, write_json
from flipside.generators.codes.blobs import AREA, Layout


@dataclass(frozen=True)
class Latents:
    """Inverted slices of all splits."""

    layout: Layout  # of N slices, on the CPU
    position: dict[int, int]  # row of the slice store -> position in `layout`
    timing: dict[str, Any]  # seconds, images, seconds_per_image, device
    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Latents:
        """From their folder; FileNotFoundError says which stage makes them."""
        path = Path(path)
        files = sorted(file for file in path.glob("*.safetensors") if file.name not in MODEL_FILES)
        if not files:
            raise FileNotFoundError(f"{path} holds no latents: run `dvc repro invert@{path.name}`")
        parts = [load_file(file) for file in files]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        position = {row: place for place, row in enumerate(tensors.pop("rows").tolist())}
        area = read_description(path)["architecture"].get("blob_area", AREA)  # absent: from before it could be chosen
        return cls(Layout(**tensors, area=area), position, read_json(path / "timing.json"), path)

    def of(self, rows: Tensor, device: torch.device) -> Layout:
        """Blobs of the slices at the store's rows (B,), on the device; ValueError where one was not inverted."""
        missing = [row for row in rows.tolist() if row not in self.position]
        if missing:
            raise ValueError(f"{self.path} has no latents of the slice at row {missing[0]} ({len(missing)} of "
                             f"{len(rows)} are missing): run `dvc repro invert@{self.path.name}`")
        places = torch.tensor([self.position[row] for row in rows.tolist()])
        return self.layout.map(lambda value: value[places].to(device))


def write_latents(path: Path | str, layout: Layout, index: pd.DataFrame, timing: dict[str, Any],
                  generator: Path | str) -> None:
    """Latents of N slices with `index` (slice_id, row, split, losses; N rows) and the generator's own two files.

    Raises ValueError for a layout that doesn't fit the index or isn't finite.
    """
    for name, value in layout.groups().items():
        if len(value) != len(index):
            raise ValueError(f"latents `{name}` of {len(value)} slices, the index has {len(index)}")
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value).flatten(1).all(dim=1)).nonzero()[0])
            raise ValueError(f"latents `{name}` of slice {index['slice_id'].iloc[bad]} are not finite: lower the "
                             "inversion's learning rate")
    rows = torch.tensor(index["row"].to_numpy())
    with atomic_folder(path) as folder:
        for split in dict.fromkeys(index["split"]):
            chosen = torch.tensor((index["split"] == split).to_numpy())
            tensors = {name: value[chosen].contiguous() for name, value in layout.groups().items()}
            save_file(tensors | {"rows": rows[chosen]}, folder / f"{split}.safetensors")
        for name in MODEL_FILES:
            shutil.copy(Path(generator) / name, folder / name)
        index.to_csv(folder / "index.csv", index=False)
        write_json(folder / "timing.json", timing)

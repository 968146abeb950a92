"""Masks on disk, a bit for each pixel: the one form in which organ, lesion and lesion masks are stored.

A .npy file (N,H,ceil(W/8)) uint8; in a row of a mask the first pixel is the highest bit of the first byte, and a last
byte that W doesn't fill ends in zeros (numpy.packbits along the last axis). W isn't in it: whoever opens it knows the
images that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from flipside.core.files import new_memmap
from flipside.core.row_batches import row_batches

Rows = int | np.integer | slice | np.ndarray  # one of N rows, or several


class Stack(Protocol):
    """Masks or maps (N,H,W) of which some rows are had without the others: an array, or what reads or makes them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Rows, /) -> np.ndarray: ...


@dataclass(frozen=True)
class PackedMasks:
    """Masks (N,H,W) in a file; `masks[rows]` reads these rows alone, as uint8 0/1: (H,W) of one, (n,H,W) of several."""

    packed: np.ndarray  # (N,H,ceil(W/8)) uint8, memory-mapped
    width: int  # W

    @classmethod
    def open(cls, path: Path | str, width: int) -> PackedMasks:
        """The masks of images that are `width` pixels wide; ValueError for a file that is cut off or holds no such."""
        packed = np.load(path, mmap_mode="r")
        if packed.dtype != np.uint8 or packed.ndim != 3 or packed.shape[2] != packed_width(width):
            raise ValueError(f"{path} holds {packed.dtype} {packed.shape}, expected uint8 (N,H,{packed_width(width)}): "
                             f"masks of {width} columns with a bit for each pixel. It is of other images or of an "
                             "older version, run `dvc repro`")
        return cls(packed, width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N,H,W)."""
        return len(self.packed), self.packed.shape[1], self.width

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: np.dtype | type | None = None, copy: bool | None = None) -> np.ndarray:
        """All of them at once, for numpy's functions."""
        return self[:].astype(dtype or np.uint8, copy=False)

    def __getitem__(self, rows: Rows, /) -> np.ndarray:
        if isinstance(rows, tuple):
            raise TypeError("masks with a bit for each pixel are read by rows alone: take masks[rows][:, top:bottom]")
        return np.unpackbits(self.packed[rows], axis=-1, count=self.width)


def packed_width(width: int) -> int:
    """Bytes of a row of `width` pixels."""
    return -(-width // 8)


def pack(masks: np.ndarray) -> np.ndarray:
    """Masks (...,W), set where they aren't 0, as bits: (...,ceil(W/8)) uint8."""
    return np.packbits(masks != 0, axis=-1)


def write_packed(path: Path | str, masks: Stack) -> None:
    """Write masks (N,H,W), set where they aren't 0, a part at a time: they needn't fit into memory."""
    count, height, width = masks.shape
    packed = new_memmap(path, np.uint8, (count, height, packed_width(width)))
    for part in row_batches(masks.shape):
        packed[part] = pack(masks[part])
    packed.flush()

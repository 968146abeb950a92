"""Pictures as images of one or three channels, and mask pictures as labels on an image's grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from flipside.scans.geometry import Geometry
from flipside.scans.picture_files import Picture, decode_picture
from flipside.scans.readers import ReadError, Volume

LUMA = (19595, 38470, 7471)  # 0.299, 0.587 and 0.114 (ITU-R BT.601) in 1/65536, as Pillow has it

ColourMode = Literal["grey", "rgb"]
Colour = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # lowest and highest R, G and B, both included


def read_image(path: Path) -> Volume:
    """A picture (PNG, TIFF, JPEG …) as one grey slice in the numbers that are stored; colour becomes luma.

    Every bit is kept: 1 to 32 bits, signed, unsigned or floating point. Fewer than 8 bits are spread over 0..255, as
    they are shown; white is high; a palette counts by its colours; the orientation that EXIF gives is applied.
    Raises ReadError for files that are no picture, damaged, of several frames, partly transparent or in the colours of
    print.
    """
    return read_image_channels(path, "grey")[0]


def read_image_channels(path: Path, colour: ColourMode) -> tuple[Volume, ...]:
    """`grey`: what `read_image` gives. `rgb`: red, green and blue on one grid, all three equal for a grey picture."""
    picture = decode_picture(path)
    samples = _spread(picture)
    if colour == "grey":
        samples = (luma(samples) if samples.ndim == 3 else samples)[..., None]  # (R,C,1)
    elif samples.ndim == 2:
        samples = np.broadcast_to(samples[..., None], (*samples.shape, 3))
    geometry = Geometry.of_image(*samples.shape[:2])
    return tuple(Volume(samples[None, ..., channel], 1.0, 0.0, geometry) for channel in range(samples.shape[2]))


def luma(samples: np.ndarray) -> np.ndarray:
    """(R,C,3) -> (R,C) in the same kind of numbers; whole numbers are rounded."""
    red, green, blue = np.moveaxis(samples, -1, 0).astype(np.float64 if samples.dtype.kind == "f" else np.int64)
    weighted = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    if samples.dtype.kind == "f":
        return np.asarray(weighted / 65536, samples.dtype)
    return np.asarray((weighted + 32768) >> 16, samples.dtype)


def _spread(picture: Picture) -> np.ndarray:
    """Samples of 1, 2 or 4 bits over 0..255; all others as they are."""
    if picture.bits in (1, 2, 4):
        return picture.samples * np.uint8(255 // (2**picture.bits - 1))
    return picture.samples


def read_image_labels(path: Path, geometry: Geometry, image_path: Path | str, colours: Sequence[Colour] | None
                      ) -> np.ndarray:
    """Labels (1,R,C) of a mask picture on the image's grid: its grey values as they are stored, of whatever depth, or
    uint8 1 where a colour lies in one of the ranges.

    Raises ReadError for another size, a mask in a coding with losses (JPEG), one with an alpha channel that says
    something, fractions, and a colour mask where grey values are expected.
    """
    mask = decode_picture(path)
    samples = mask.samples
    if mask.lossy:
        raise ReadError(path, f"is a mask in {mask.lossy}, which blurs labels at every edge",
                        "Get the mask as PNG or TIFF, or set a threshold yourself and save it as PNG")
    if samples.shape[:2] != geometry.shape:
        raise ReadError(path, f"mask of {samples.shape[0]}x{samples.shape[1]} pixels doesn't lie on the grid of "
                        f"{image_path}, {geometry.shape[0]}x{geometry.shape[1]} (both turned as their EXIF says)",
                        "Get the mask that belongs to the image, or bring both to one size")
    if colours is None:
        return _grey_labels(path, samples)[None]
    if mask.bits > 8 or samples.dtype.kind != "u":
        raise ReadError(path, f"has {mask.bits} bits per channel, but `colours` are of 8",
                        "Save the mask with 8 bits per channel")
    rgb = _spread(mask)  # (R,C) or (R,C,3)
    rgb = rgb if rgb.ndim == 3 else np.broadcast_to(rgb[..., None], (*rgb.shape, 3))
    hit = np.zeros(rgb.shape[:2], bool)
    for ranges in colours:
        low, high = np.array(ranges).T  # (3,)
        hit |= ((rgb >= low) & (rgb <= high)).all(axis=-1)
    return hit[None].astype(np.uint8)


def _grey_labels(path: Path, samples: np.ndarray) -> np.ndarray:
    """(R,C) whole labels."""
    if samples.ndim == 3:
        if (samples != samples[..., :1]).any():
            first = samples[(samples != samples[..., :1]).any(axis=-1)][0]
            raise ReadError(path, f"is a colour mask (for example {first.tolist()}), but `values` are grey",
                            "Give the mask's `colours` instead (layout image_mask), or save it with grey labels")
        samples = samples[..., 0]
    if samples.dtype.kind != "f":
        return samples
    whole = np.rint(samples)
    if not (np.abs(samples - whole) < 1e-3).all() or np.abs(whole).max() >= 2**31:  # NaN fails the comparison
        raise ReadError(path, "holds fractions, expected whole labels", "Resample labels by nearest neighbour")
    return whole.astype(np.int64)

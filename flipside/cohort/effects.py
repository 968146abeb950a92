"""The synthetic effect-map data of VA-GAN (Baumgartner et al. 2018, section 4.1) and of CX-GAN: noise images, of which
half have a constant added in known places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator
from scipy.ndimage import gaussian_filter

from flipside.core.files import atomic_folder
from flipside.core.params import Params


class EffectParams(Params):
    """Section `synthetic_effect`."""

    images: int = Field(ge=8)
    """Number of images, half of them healthy (VA-GAN: 10000)."""
    size: int = Field(ge=32)
    """Side of an image in pixels (VA-GAN: 112, CX-GAN: 128)."""
    blur: float = Field(gt=0)
    """Standard deviation, in pixels, of the Gaussian that smooths the noise."""
    deviation: float = Field(gt=0)
    """Standard deviation of the smoothed noise's values."""
    form: Literal["boxes", "disc"]
    """`boxes`: one in the centre and one in one of two corners (VA-GAN); `disc`: one in one of the corners (CX-GAN)."""
    effect: float
    """Constant that is added where the effect is (VA-GAN: 100, CX-GAN: 500)."""
    extent: int = Field(ge=1)
    """Side of a box (VA-GAN: 20) or radius of the disc (CX-GAN: 8), in pixels."""
    offset: int = Field(ge=0)
    """Distance of the effect in a corner from the image's centre on both axes, in pixels (VA-GAN: 32, CX-GAN: 40)."""
    jitter: tuple[int, int]
    """Range of pixels, drawn for each axis and added to it, both ends included (VA-GAN: -5 to 4, CX-GAN: 0)."""

    @model_validator(mode="after")
    def _inside(self) -> EffectParams:
        low, high = self.jitter
        if low > high:
            raise ValueError(f"jitter must be [low, high], found [{low}, {high}]")
        reach = self.offset + max(-low, high, 0) + (self.extent // 2 if self.form == "boxes" else self.extent)
        if reach >= self.size // 2:
            raise ValueError(f"the effect reaches {reach} pixels from the image's centre, beyond half of its size "
                             f"{self.size}, and would be cut off: make `size` larger, or `offset`, `jitter` or "
                             "`extent` smaller")
        return self


def draw_effect(params: EffectParams, rng: np.random.Generator) -> np.ndarray:
    """Where one abnormal image has the effect, (size,size) bool: lower right or upper left, with equal chance."""
    direction = rng.choice([-1, 1])
    low, high = params.jitter
    centre = params.size // 2 + direction * params.offset + rng.integers(low, high + 1, 2)  # row, column
    rows, columns = np.ogrid[: params.size, : params.size]
    if params.form == "disc":
        return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= params.extent**2

    def box(row: int, column: int) -> np.ndarray:
        first = row - params.extent // 2, column - params.extent // 2
        return ((rows >= first[0]) & (rows < first[0] + params.extent)
                & (columns >= first[1]) & (columns < first[1] + params.extent))

    return box(params.size // 2, params.size // 2) | box(*centre)


def draw_images(params: EffectParams, effect: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed noise plus the effect, and the same noise without it: (size,size) uint8 both.

    As published, each image's least value is 0 and its greatest 255. This makes the background of an abnormal image
    darker: classes differ outside of the effect too.
    """
    noise = gaussian_filter(rng.normal(size=(params.size, params.size)), params.blur)
    noise = (noise - noise.mean()) / noise.std() * params.deviation
    return _stretched(noise + params.effect * effect), _stretched(noise)


def _stretched(image: np.ndarray) -> np.ndarray:
    return np.round((image - image.min()) / (image.max() - image.min()) * 255).astype(np.uint8)


def write_images(params: EffectParams, seed: int, path: Path | str, numbers: Iterable[int]) -> None:
    """`images/<number>.png`, `effects/<number>.png` (0 or 255) and `clean/<number>.png`, the image without its effect;
    odd numbers abnormal; whole or not at all.

    An image depends on seed and number alone.
    """
    with atomic_folder(path) as folder:
        for name in ("images", "effects", "clean"):
            (folder / name).mkdir(parents=True)
        for number in numbers:
            rng = np.random.default_rng([seed % 2**32, number])
            nowhere = np.zeros((params.size, params.size), bool)
            effect = draw_effect(params, rng) if number % 2 else nowhere
            image, clean = draw_images(params, effect, rng)
            for name, pixels in (("images", image), ("effects", effect.astype(np.uint8) * 255), ("clean", clean)):
                Image.fromarray(pixels).save(folder / f"{name}/{number:05d}.png")

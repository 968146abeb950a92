"""What the inversion and the searches call of a generator that draws an image from blobs."""

from __future__ import annotations

from typing import Protocol

from torch import Generator, Tensor

from flipside.generators.codes.blobs import Layout


class BlobRenderer(Protocol):
    """The part of the generator that draws the image."""

    noise_sides: list[int]  # of its noise maps, in the order of a layout's noise

    def noise_numbers(self, largest: int) -> int: ...  # how many its noise maps up to this side have


class BlobGenerator(Protocol):
    """Images (B,C,H,W) from K blobs, whose parameters are a `Layout`."""

    latent: int
    blob_area: float  # that of all its layouts
    renderer: BlobRenderer

    def layout(self, z: Tensor) -> Tensor: ...  # (B,latent) -> h, a code of the blobs
    def decode(self, h: Tensor) -> Layout: ...
    def shares(self, layout: Layout) -> Tensor: ...  # (B,K+1,H,W), of background and blobs in each pixel
    def render(self, layout: Layout, noise: Generator | None = None, shares: Tensor | None = None) -> Tensor: ...

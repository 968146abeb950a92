"""The size of the slices that the pipeline works on: `image_size` in params.yaml."""

from __future__ import annotations

from typing import Annotated

import pydantic

Side = Annotated[int, pydantic.Field(gt=0)]
ImageSize = Side | tuple[Side, Side]  # one side of a square, or rows and columns


def image_shape(size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """(H,W) in pixels of a value of `image_size`."""
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows, columns

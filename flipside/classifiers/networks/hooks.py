"""Feature maps of any module tree: forward hooks on layers by name, maps and tokens alike as grids (B,C,h,w)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

PREFIX_TOKENS = 16  # most tokens before those of the patches: class token, registers


def as_grid(output: Any, size: tuple[int, int]) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
    """A layer's output as a grid (B,C,h,w), and the way back to its own form; None where it is no grid.

    size: height and width of the image that the network gets, whose proportions a grid shares. Known are (B,C,h,w),
    (B,h,w,C), and tokens (B,N,C) of patches row by row, with class token and registers before them.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.ndim == 4:
        if _fits(output.shape[2], output.shape[3], size):
            return output, lambda grid: grid
        if _fits(output.shape[1], output.shape[2], size):
            return output.permute(0, 3, 1, 2), lambda grid: grid.permute(0, 2, 3, 1)
    if output.ndim == 3 and (shape := _token_grid(output.shape[1], size)):
        before = output.shape[1] - shape[0] * shape[1]
        grid = output[:, before:].transpose(1, 2).unflatten(2, shape)  # (B,N,C) -> (B,C,h,w)
        return grid, lambda grid: torch.cat([output[:, :before], grid.flatten(2).transpose(1, 2)], dim=1)
    return None


def _fits(rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Whether a grid of more than one cell has an image's proportions, up to one cell of rounding."""
    height, width = size
    return rows * columns > 1 and abs(rows * width - columns * height) < max(height, width)


def _token_grid(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of so many tokens of an image's patches, the fewest possible tokens before them left out."""
    height, width = size
    for patches in range(count, max(1, count - PREFIX_TOKENS), -1):
        rows = round((patches * height / width) ** 0.5)
        if rows and patches % rows == 0 and round(patches // rows * height / width) == rows:
            return rows, patches // rows
    return None


@contextlib.contextmanager
def watching(network: nn.Module, layers: list[str], head: str | None,
             size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """{layer: its grid (B,C,h,w) of the last pass, "": what the layer `head` was given}, filled while the block runs.

    What follows a layer is computed from the grid, so that it has a gradient.
    """
    seen: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            found = as_grid(output, size)
            if found is None:
                return None
            grid, back = found
            seen[name] = grid
            return None if grid is output else back(grid)
        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    if head is not None:
        handles.append(network.get_submodule(head).register_forward_pre_hook(
            lambda module, inputs: seen.update({"": inputs[0]})))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

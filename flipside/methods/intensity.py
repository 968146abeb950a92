"""Control: the image itself, bright means abnormal. Shows how far a plain intensity threshold gets."""

from __future__ import annotations

from torch import Tensor

from flipside.methods.base.maps import MapMethod


class Intensity(MapMethod):
    """Brightness."""

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        return (images.squeeze(1) + 1) / 2  # (B,1,H,W) in [-1,1] -> (B,H,W) in [0,1]

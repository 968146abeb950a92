"""Control: the image itself (of several channels their mean), bright means abnormal. Shows how far a plain intensity
threshold gets."""

from __future__ import annotations

from torch import Tensor

from flipside.methods.base.maps import MapMethod


class Intensity(MapMethod):
    """Brightness."""

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        return (images.mean(dim=1) + 1) / 2  # (B,C,H,W) in [-1,1] -> (B,H,W) in [0,1]

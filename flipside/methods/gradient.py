"""Input gradient (Simonyan et al. 2014): |d logit / d x|, the saliency that Major et al. (2020) compare with.

Of several channels the greatest, as Simonyan et al. have it of colours (section 3.1).
"""

from __future__ import annotations

from captum.attr import Saliency
from torch import Tensor

from flipside.methods.base.maps import MapMethod


class Gradient(MapMethod):
    """Absolute input gradient."""

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        leaf = images.detach().clone().requires_grad_()  # captum switches gradients on in the tensor that it is given
        return Saliency(self.context.classifier).attribute(leaf, abs=True).amax(dim=1).detach()  # (B,C,H,W) -> (B,H,W)

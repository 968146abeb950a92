"""The blobs of BlobGAN (Epstein et al. 2022): their parameters, how opaque each is where, and what of it is seen.

Grid coordinates are i/S for i = 0..S-1; x runs along a row, y down. Blobs are in the order of their depth, the last in
front; number 0 is the background, which has no place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

AREA = 0.02  # published: product of the roots of a blob's two variances, whatever its eccentricity
# Largest shift while training: xy for blobs of AREA, in proportion to their width for others; the angle in radians.
JITTER = {"xy": 0.04, "size": 0.5, "angle": 0.1}


@dataclass(frozen=True)
class Layout:
    """B images' blobs: K of them and the background."""

    xy: Tensor  # (B,K,2) centres, in [0,1] where the layout network made them
    size: Tensor  # (B,K+1) how far half opacity reaches; of the background unused
    shape: Tensor  # (B,K,4) logits of the two axes' share, and the direction (cos, sin) of the first, of any length
    feat: Tensor  # (B,K+1,F) structure
    style: Tensor  # (B,K+1,S)
    noise: Tensor  # (B,N) what the inversion adds to the renderer's noise maps, one after the other; N = 0: nothing
    area: float = AREA  # of all blobs: their variance along either axis when they are round, in squares of the side

    def map(self, function: Callable[[Tensor], Tensor]) -> Layout:
        return Layout(**{name: function(value) for name, value in self.groups().items()}, area=self.area)

    def groups(self) -> dict[str, Tensor]:
        """What differs between images, by name: all but `area`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "area"}

    def rows(self, chosen: Tensor) -> Layout:
        """Of some of the images, by positions or as a mask (B,)."""
        return self.map(lambda value: value[chosen])

    def where(self, chosen: Tensor, other: Layout) -> Layout:
        """Own values where `chosen`, the other's elsewhere: (B,) of whole images, (B,K+1) of blobs with background."""
        def pick(name: str, own: Tensor) -> Tensor:
            mask = chosen
            if mask.dim() == 2 and name == "noise":
                return own  # of the whole image, no blob's
            if mask.dim() == 2 and name in ("xy", "shape"):
                mask = mask[:, 1:]  # these have no row for the background
            return torch.where(mask.view(*mask.shape, *[1] * (own.dim() - mask.dim())), own, getattr(other, name))

        return Layout(**{name: pick(name, own) for name, own in self.groups().items()}, area=self.area)

    @property
    def blobs(self) -> int:
        """K."""
        return self.xy.shape[1]


def semi_variances(shape: Tensor, area: float = AREA) -> tuple[Tensor, Tensor, Tensor]:
    """Of shape numbers (...,4): variances along and across the first axis (...,), and that axis (...,2)."""
    ratio = (torch.sigmoid(shape[..., 0]) / torch.sigmoid(shape[..., 1])).sqrt()
    return area * ratio + 1e-5, area / ratio + 1e-5, F.normalize(shape[..., 2:], dim=-1)


def opacity_logits(layout: Layout, side: int) -> Tensor:
    """t = size - d^2 (B,K,side,side), d the Mahalanobis distance to the centre; the opacity is sigmoid(t).

    d^2 = a dx^2 + b dx dy + c dy^2, so that all but two passes over the grid are over its rows or its columns.
    """
    grid = torch.arange(side, device=layout.xy.device, dtype=layout.xy.dtype) / side
    along, across, axis = (value[..., None, None] for value in semi_variances(layout.shape, layout.area))
    ux, uy = axis.unbind(dim=2)  # (B,K,2,1,1) -> (B,K,1,1) each
    a, c = ux.square() / along + uy.square() / across, uy.square() / along + ux.square() / across
    b = 2 * ux * uy * (1 / along - 1 / across)
    dx = grid[None, None, None, :] - layout.xy[..., 0, None, None]  # (B,K,1,side)
    dy = grid[None, None, :, None] - layout.xy[..., 1, None, None]  # (B,K,side,1)
    along_rows, along_columns = layout.size[:, 1:, None, None] - a * dx.square(), -c * dy.square()
    return torch.addcmul(along_rows + along_columns, -b * dy, dx)


def visible_shares(logits: Tensor) -> Tensor:
    """Shares (B,K+1,h,w) of background and blobs in each pixel, of opacity logits (B,K,h,w); they sum to one.

    omega_k = alpha_k * prod_{l > k} (1 - alpha_l), in logarithms: log(1 - sigmoid(t)) = log(sigmoid(t)) - t.
    """
    opaque = F.logsigmoid(logits)  # log(alpha)
    shares = summed_in_front(opaque - logits) + F.pad(opaque, (0, 0, 0, 0, 1, 0))
    return (shares * (1 / math.log(2))).exp2()  # torch's exp takes 15 times as long where the result is nearly 0


def summed_in_front(clear: Tensor) -> Tensor:
    """Of background and blobs, the sums (B,K+1,h,w) of log(1 - alpha) (B,K,h,w) over all blobs in front of each."""
    count, blobs, height, width = clear.shape
    if clear.is_cuda:  # a matrix product might be in TF32, whose rounding the sum to one wouldn't survive
        from_here = clear.flip(1).cumsum(1).flip(1)  # (B,K,h,w)
        return F.pad(from_here, (0, 0, 0, 0, 0, 1))
    ahead = torch.ones(blobs + 1, blobs, dtype=clear.dtype).triu()  # row k: the blobs k+1, ..., K
    return (ahead @ clear.flatten(2)).view(count, blobs + 1, height, width)


def pyramid(shares: Tensor, smallest: int) -> dict[int, Tensor]:
    """Shares (B,K+1,S,S) at S, S/2, ..., `smallest`, by side; each the bilinear half of the one before."""
    levels = {shares.shape[-1]: shares}
    while shares.shape[-1] > smallest:
        shares = F.avg_pool2d(shares, 2)  # the same as bilinear at a scale of one half
        levels[shares.shape[-1]] = shares
    return levels


def splat(shares: Tensor, vectors: Tensor) -> Tensor:
    """Vectors (B,K+1,C) spread over their blobs' shares (B,K+1,h,w): (B,C,h,w)."""
    count, _, height, width = shares.shape
    spread = torch.bmm(shares.flatten(2).transpose(1, 2), vectors)  # (B,h*w,C): the layout that convolutions want
    return spread.view(count, height, width, -1).permute(0, 3, 1, 2)


def jittered(layout: Layout, uniform: Tensor) -> Layout:
    """Blobs shifted, resized and turned by random numbers (B,K,4) in [-1,1), as BlobGAN does while it trains."""
    angle = JITTER["angle"] * uniform[..., 3]
    cosine, sine = angle.cos(), angle.sin()
    first, second = layout.shape[..., 2], layout.shape[..., 3]
    turned = torch.stack([cosine * first - sine * second, sine * first + cosine * second], dim=-1)  # (B,K,2)
    size = torch.cat([layout.size[:, :1], layout.size[:, 1:] + JITTER["size"] * uniform[..., 2]], dim=1)
    shift = JITTER["xy"] * math.sqrt(layout.area / AREA)
    return replace(layout, xy=layout.xy + shift * uniform[..., :2], size=size,
                   shape=torch.cat([layout.shape[..., :2], turned], dim=-1))

"""Which blobs TACE changes: the one that matters most to OCTET's result, those that overlap it, and where they are.

The paper takes the blob that is displaced most. Adam displaces every blob by about as much, whether or not the
classifier looks at it, so `rank: logit` asks the classifier what this blob's change does alone. (Taking back the change
of one blob of many tells less: blobs overlap, and the others hide what it was for.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from flipside.core.params import Params
from flipside.core.runtime import generator_for
from flipside.generators.codes.blobs import Layout, opacity_logits, semi_variances
from flipside.methods.latent.blob_generator import BlobGenerator

RASTER = 64  # side of the grid on which blobs overlap
SAMPLES = 10_000  # layouts that a dimension's spread is taken from
OPAQUE = 0.1  # a blob can be seen from here on
SMALLEST_PX = 4  # footprint of a blob that can be the most changed one


class RegionParams(Params):
    """Which blobs form TACE's region; the paper says: the most changed blob and all that overlap it."""

    rank: Literal["logit", "displacement"]
    """Which blob comes first. logit: the one whose change, with all others as inverted, lowers the classifier's logit
    of abnormal most; displacement: the one whose parameters changed most, as published."""
    seeds: PositiveInt
    """How many of the first blobs the region starts from; TACE: 1."""
    neighbours: NonNegativeInt
    """Most neighbours that each of these brings with it, those with the greatest overlap first."""
    least_overlap: float = Field(ge=0, lt=1)
    """Share of the smaller of two footprints that both must cover for the blobs to be neighbours."""
    largest_neighbour: float = Field(gt=0, le=1)
    """Largest footprint of a neighbour, as a share of the image; a blob as large as an organ would make all of it
    region."""


@dataclass(frozen=True)
class Region:
    most_changed: Tensor  # (B,) k*, counted from 0 without the background
    chosen: Tensor  # (B,K+1) bool: k* and its neighbours; never the background


def describe_blobs(layout: Layout) -> dict[str, Tensor]:
    """Each blob as numbers (B,K,n) by group whose difference means a change: an ellipse rotated by 180 degrees is the
    same one."""
    eccentricity = 0.5 * (torch.sigmoid(layout.shape[..., 0]) / torch.sigmoid(layout.shape[..., 1])).log()
    angle = 2 * torch.atan2(layout.shape[..., 3], layout.shape[..., 2])
    return {
        "xy": layout.xy, "size": layout.size[:, 1:, None],
        "shape": eccentricity[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1),
        "feat": layout.feat[:, 1:], "style": layout.style[:, 1:],
    }


@torch.no_grad()
def estimate_spreads(generator: BlobGenerator, seed: int, device: torch.device) -> dict[str, Tensor]:
    """Standard deviation of each of these numbers over blobs of random layouts, by group."""
    parts: dict[str, list[Tensor]] = {}
    for number in range(10):
        z = torch.randn(SAMPLES // 10, generator.latent, generator=generator_for(seed, number)).to(device)
        for name, value in describe_blobs(generator.decode(generator.layout(z))).items():
            parts.setdefault(name, []).append(value.flatten(0, 1))  # (B,K,n) -> (B*K,n)
    return {name: torch.cat(values).std(dim=0).clamp(min=1e-6) for name, values in parts.items()}


def score_changes(layout: Layout, start: Layout, spread: dict[str, Tensor]) -> Tensor:
    """||delta_k|| (B,K): over the groups, the root of the summed mean squares of the change in units of its spread."""
    before, after = describe_blobs(start), describe_blobs(layout)
    return torch.stack([((after[name] - before[name]) / spread[name]).square().mean(dim=-1)
                        for name in before]).sum(dim=0).sqrt()


@torch.no_grad()
def score_by_logit(layout: Layout, start: Layout, ask: Callable[[Layout, Tensor, Tensor], Tensor],
                   batch_size: int) -> Tensor:
    """By how much the change of one blob alone lowers the logit of abnormal, (B,K), up to a constant of each image.

    ask: logits (R,) of the blobs of images `rows` (R,), of which `changed` (R,K+1) are not as at the start; it is
    called for `batch_size` images at a time.
    """
    count, blobs, device = len(layout.xy), layout.blobs, layout.xy.device
    rows, blob = (each.flatten() for each in torch.meshgrid(
        torch.arange(count, device=device), torch.arange(1, blobs + 1, device=device), indexing="ij"))  # (B*K,)
    numbers = torch.arange(blobs + 1, device=device)
    parts = []
    for part, own in zip(rows.split(batch_size), blob.split(batch_size), strict=True):
        changed = numbers == own[:, None]  # (R,K+1)
        parts.append(-ask(layout.rows(part).where(changed, start.rows(part)), part, changed))
    return torch.cat(parts).view(count, blobs)


def draw_footprints(layout: Layout) -> Tensor:
    """Where each blob is at least `OPAQUE`: (B,K,RASTER,RASTER) bool."""
    return opacity_logits(layout, RASTER) >= math.log(OPAQUE / (1 - OPAQUE))


@torch.no_grad()
def choose_region(start: Layout, layout: Layout, score: Tensor, params: RegionParams) -> Region:
    """k* of each image, the blob with the highest score (B,K), and the blobs that overlap it, of the blobs before
    (`start`) and after."""
    prints = (draw_footprints(start) | draw_footprints(layout)).flatten(2).float()  # (B,K,pixels)
    area = prints.sum(dim=2)  # (B,K)
    candidate = area >= SMALLEST_PX
    candidate |= ~candidate.any(dim=1, keepdim=True)  # no visible blob at all: then all of them
    order = score.masked_fill(~candidate, -torch.inf).argsort(dim=1, descending=True)
    count = min(params.seeds, score.shape[1])
    chosen = torch.zeros_like(candidate)
    for place in range(count):
        seed = order[:, place : place + 1]  # (B,1)
        own_area, own = area.gather(1, seed), prints.gather(1, seed[..., None].expand(-1, -1, prints.shape[2]))
        shared = (prints * own).sum(dim=2)
        overlap = shared / torch.minimum(area, own_area).clamp(min=1)  # (B,K)
        allowed = (overlap > params.least_overlap) & (area <= params.largest_neighbour * RASTER**2)
        allowed.scatter_(1, seed, False)
        ranked = overlap.masked_fill(~allowed, -1).argsort(dim=1, descending=True)[:, : params.neighbours]
        chosen |= torch.zeros_like(chosen).scatter(1, ranked, allowed.gather(1, ranked))
        chosen.scatter_(1, seed, True)
    background = torch.zeros_like(chosen[:, :1])
    return Region(order[:, 0], torch.cat([background, chosen], dim=1))


def outline_blobs(layout: Layout, region: Region) -> Tensor:
    """The blobs as a report draws them, (B,K,7): centre x and y, both semi-axes where the opacity is one half (0 where
    it never is), angle of the first in radians, 1 if in the region, 1 if k*; lengths as shares of the image's side."""
    along, across, axis = semi_variances(layout.shape, layout.area)  # (B,K), (B,K), (B,K,2)
    reach = layout.size[:, 1:].clamp(min=0)
    most = torch.zeros_like(reach).scatter(1, region.most_changed[:, None], 1.0)
    return torch.stack([layout.xy[..., 0], layout.xy[..., 1], (reach * along).sqrt(), (reach * across).sqrt(),
                        torch.atan2(axis[..., 1], axis[..., 0]), region.chosen[:, 1:].float(), most], dim=-1)


def mask_region(before: Tensor, after: Tensor, chosen: Tensor) -> Tensor:
    """M (B,1,H,W) in [0,1] of the shares (B,K+1,H,W) before and after: exactly 0 where the chosen blobs hold <= 5 %.

    Half of the pixel is enough for 1; in between the edge is soft. No gradient goes through it.
    """
    with torch.no_grad():
        seen = [(shares * chosen[:, :, None, None]).sum(dim=1, keepdim=True) for shares in (before, after)]
        return ((torch.maximum(*seen) - 0.05) / 0.45).clamp(0, 1)


def gate_noise(noise: Tensor, sides: list[int], mask: Tensor) -> Tensor:
    """Noise (B,N), maps of these sides one after the other, without what it says inside M (B,1,H,W): (B,N).

    The inversion finds the noise image by image, and a lesion's detail is in it that no blob's change would take away.
    """
    parts, begin = [], 0
    for side in sides:
        part = noise[:, begin : begin + side**2]
        if part.shape[1] == 0:
            break
        parts.append((1 - F.interpolate(mask, size=(side, side), mode="area").flatten(1)) * part)
        begin += side**2
    return torch.cat(parts, dim=1) if parts else noise

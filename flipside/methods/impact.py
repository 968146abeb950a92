"""Counterfactual impact analysis (Major et al. 2020, arXiv:2004.01610): the smallest smooth region whose replacement by
inpainted healthy tissue makes the classifier call the slice healthy.

The paper's M means "known" in I M and "salient" in its size; here S is the salient region (1 = hole) and 1 - S the
inpainter's validity. As printed, its score terms raise p(c), so c is taken for "healthy". The masks of a whole batch
are optimised at once; the loss is a sum over images, so each image's result is the one that it has alone.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from flipside.artifacts.explanations import STEPS
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.generator_pass import GeneratorMethod
from flipside.methods.base.maps import upsample
from flipside.methods.base.parameters import MethodParams

SMOOTH = 0.01  # differences below it count less than they are; else rounding would decide between equal neighbours
ADAM_EPSILON = 1e-6  # a cell whose gradient is nothing but rounding stays where it is


class ImpactParams(MethodParams):
    """Section `methods.impact`."""

    needs: Literal["models/generators/impact"]
    """Folder of the trained inpainter."""
    steps: int = Field(ge=1)
    """Steps of Adam."""
    learning_rate: float = Field(gt=0)
    """Adam's learning rate, on the cells of S."""
    cell_px: int = Field(ge=1)
    """Side of a cell in pixels: the salient region S is optimised on a grid of cells and is smooth between them."""
    initial: tuple[float, float]
    """The two values of S that the grid starts with, alternating like a chessboard."""
    threshold: float = Field(gt=0, lt=1)
    """Theta: value of S above which a pixel belongs to the region."""
    relaxation: Literal["soft", "straight_through"]
    """What masks the composite. soft: S itself; straight_through: S cut at theta, with the gradient of S."""
    inside_organ: bool
    """Whether only cells that touch the organ may become holes."""
    least_logit: float
    """Logit below which the score terms hardly fall any further; as printed in the paper, psi has no lower bound."""
    lambda_score: float = Field(ge=0)
    """Lambda 1, weight of the score terms phi + psi."""
    lambda_total_variation: float = Field(ge=0)
    """Lambda 2, weight of the total variation of S; 0 together with `lambda_area` is the paper's ablation."""
    lambda_area: float = Field(ge=0)
    """Lambda 3, weight of the Dice overlap of S with the organ."""


class Inpainter(Protocol):
    """What is called of the trained inpainter."""

    def inpaint(self, images: Tensor, holes: Tensor) -> Tensor: ...  # (B,C,H,W) in [-1,1], (B,1,H,W) in [0,1]


class Impact(GeneratorMethod):
    """The smallest region whose inpainting flips the decision."""

    Params = ImpactParams
    extras = (STEPS,)
    explains_any_classifier = True  # the inpainter is trained without the classifier
    params: ImpactParams
    generator: Inpainter

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Explain images (B,C,H,W) in [-1,1] with organ masks (B,H,W).

        Attribution: S where it passes theta, else 0 (the paper's result masks). Counterfactual: the image with all that
        passes theta inpainted. An image whose logit is at or below `least_logit` has nothing to gain: its S is
        empty.
        """
        organ = organ.unsqueeze(1) > 0  # (B,H,W) -> (B,1,H,W)
        organ |= ~organ.flatten(1).any(dim=1).view(-1, 1, 1, 1)  # a slice without organ: all of it
        with torch.no_grad():
            logits = self.classify(images)
        searched = logits > self.params.least_logit  # (B,)
        result, counterfactual = torch.zeros_like(images[:, :1]), images.clone()  # (B,1,H,W), (B,C,H,W)
        if searched.any():
            result[searched], counterfactual[searched] = self.optimise(images[searched], organ[searched],
                                                                       logits[searched])
        return ExplanationBatch(result.squeeze(1), counterfactual, {STEPS: self.params.steps * searched})

    def optimise(self, images: Tensor, organ: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """S cut at theta (B,1,H,W), and the counterfactuals, of images (B,C,H,W) with organs (B,1,H,W), logits (B,)."""
        cells, allowed = self.initial_grid(organ)
        with torch.enable_grad():
            cells.requires_grad_()
            optimizer = torch.optim.Adam([cells], self.params.learning_rate, eps=ADAM_EPSILON)
            for _ in range(self.params.steps):
                saliency = self.draw(cells, allowed, organ)
                (cells.grad,) = torch.autograd.grad(self.loss(saliency, images, organ, logits).sum(), cells)
                optimizer.step()
                with torch.no_grad():
                    cells.clamp_(0, 1)
        with torch.no_grad():
            saliency = self.draw(cells, allowed, organ)
            holes = self.cut(saliency)
            with self.context.runtime.autocast():
                counterfactual = self.generator.inpaint(images, holes)
        return saliency * holes, counterfactual.float()

    def initial_grid(self, organ: Tensor) -> tuple[Tensor, Tensor]:
        """The regular grid that the optimisation starts from, and where it may have holes (0/1): (B,1,h,w) cells each.

        Organ (B,1,H,W) bool. Cells at the right and lower edge may reach beyond the image.
        """
        cell = self.params.cell_px
        allowed = F.max_pool2d(organ.float(), cell, ceil_mode=True)  # (B,1,H,W) -> (B,1,h,w)
        if not self.params.inside_organ:
            allowed = torch.ones_like(allowed)
        places = [torch.arange(size, device=organ.device) for size in allowed.shape[2:]]
        first = (places[0][:, None] + places[1]) % 2 == 0  # (h,w)
        start = torch.where(first, self.params.initial[0], self.params.initial[1])
        return start.expand_as(allowed).clone(), allowed

    def draw(self, cells: Tensor, allowed: Tensor, organ: Tensor) -> Tensor:
        """The saliency map S (B,1,H,W) in [0,1] of cells (B,1,h,w), bilinear between their centres."""
        cell, (height, width) = self.params.cell_px, organ.shape[2:]
        padded = cells.new_empty(len(cells), 1, cells.shape[2] * cell, cells.shape[3] * cell)
        return upsample((cells * allowed).squeeze(1), padded).unsqueeze(1)[..., :height, :width]

    def cut(self, saliency: Tensor) -> Tensor:
        """S (B,1,H,W) cut at theta: 1 above it, else 0."""
        return (saliency > self.params.threshold).to(saliency.dtype)

    def classify(self, images: Tensor) -> Tensor:
        """Logits (B,) of abnormal, of images (B,C,H,W)."""
        with self.context.runtime.autocast():
            return self.context.classifier(images).float()

    def loss(self, saliency: Tensor, images: Tensor, organ: Tensor, logits: Tensor) -> Tensor:
        """Each image's loss (B,): lambda 1 (phi + psi) + lambda 2 tv(S) + lambda 3 ar(S), Major et al. section 2.

        saliency (B,1,H,W) in [0,1]; logits (B,) those of the images. With the logit l of the composite phi is
        softplus(l) = -log p(healthy), psi is l minus the image's own. Both take l smoothly bounded by `least_logit`: a
        slice that is healthy enough needs no larger mask, and the shape terms may shrink it.
        """
        params, holes = self.params, saliency
        if params.relaxation == "straight_through":
            holes = self.cut(saliency) + saliency - saliency.detach()
        with self.context.runtime.autocast():
            composite = self.generator.inpaint(images, holes)
        logit = params.least_logit + F.softplus(self.classify(composite) - params.least_logit)
        loss = params.lambda_score * (F.softplus(logit) + logit - logits)
        return (loss + params.lambda_total_variation * map_variation(saliency)
                + params.lambda_area * dice_overlap(saliency, organ))


def map_variation(maps: Tensor) -> Tensor:
    """Anisotropic total variation (B,) of maps (B,1,H,W), 0 beyond their borders: neighbours' differences, summed.

    In sides of the image (the root of its area): that of a 0/1 mask is its outline, at any resolution the same.
    """
    framed = F.pad(maps, (1, 1, 1, 1))
    rows, columns = ((difference**2 + SMOOTH**2).sqrt() - SMOOTH
                     for difference in (framed.diff(dim=2), framed.diff(dim=3)))
    rows, columns = rows.sum(dim=(1, 2, 3)), columns.sum(dim=(1, 2, 3))
    return (rows + columns) / (maps.shape[2] * maps.shape[3]) ** 0.5


def dice_overlap(maps: Tensor, organ: Tensor) -> Tensor:
    """Dice (B,) in [0,1] of maps (B,1,H,W) in [0,1] with organs (B,1,H,W) bool; 0 where there is no organ.

    The paper's size ar(M): covering less of the organ is better.
    """
    both = (maps * organ).sum(dim=(1, 2, 3))
    return 2 * both / (maps.sum(dim=(1, 2, 3)) + organ.sum(dim=(1, 2, 3))).clamp(min=1)

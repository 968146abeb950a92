"""TACE (Tumor-Aware Counterfactual Explanations): OCTET, then only its most changed blob and what overlaps it.

The paper's equation 4 repeats equation 3 and has no term that flips the decision. `restricted_cf` reads it as a search
for a counterfactual among the blobs of the region; `literal_eq4` starts at OCTET's result, puts all other blobs back,
minimises equation 4 as printed and keeps the last image that is still called healthy.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flipside.classifiers.perceptual import View
from flipside.generators.nn.blobs import Layout
from flipside.generators.nn.encoding import layout_distance, observer_of
from flipside.generators.nn.networks import clamped
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch
from flipside.methods.latent.latent_search import Found, SearchParams, Trial, change, search, toward_healthy
from flipside.methods.latent.latents import Latents
from flipside.methods.latent.regions import Region, RegionParams, choose_region, outlines, region_mask, spreads
from flipside.methods.octet import unrestricted


class MethodParams(SearchParams):
    needs: Literal["data/latents/blobgan"]
    """Folder of the inverted slices, with their generator."""
    first_steps: int = Field(ge=1)
    """Of the unrestricted search."""
    region: RegionParams
    step: Literal["restricted_cf", "literal_eq4"]
    composite: Literal["residual", "replace", "none"]
    """The paper never says that it composites."""
    lambda_perceptual: float = Field(ge=0)
    lambda_pixel: float = Field(ge=0)
    lambda_decision: float = Field(ge=0)
    """Literal_eq4 alone: it pulls back to the scan's class."""
    lambda_proximity: float = Field(ge=0)
    """Literal_eq4 alone, of the six groups' summed squares; OCTET's code: 0.1."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.params, self.context = params, context
        self.generator = load_generator(params.needs, context.runtime)
        self.latents = Latents.open(params.needs)
        self.seconds_before = self.latents.timing["seconds_per_image"]
        self.observer = observer_of(context.classifier)
        self.spread = spreads(self.generator, context.seed, context.runtime.device)

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,1,H,W) in [-1,1] that were inverted as `rows` (B,) of the store.

        A scan that is called healthy by the margin is its own counterfactual and has no region.
        """
        with torch.no_grad():
            searched = self.params.unfinished(self.context.classifier(images))  # (B,)
        counterfactual, mask = images.clone(), torch.zeros_like(images)
        blobs = torch.zeros(len(images), self.latents.layout.blobs, 7, device=images.device)
        steps = torch.zeros(len(images), dtype=torch.long, device=images.device)
        if searched.any():
            start = self.latents.of(rows[searched.cpu()], images.device)
            made = self.explain(images[searched], start)
            counterfactual[searched], mask[searched], steps[searched], blobs[searched] = made
        roi = None if self.params.composite == "none" else mask  # without compositing the whole scan changes
        return ExplanationBatch.from_counterfactual(images, counterfactual, steps, roi=roi, blobs=blobs)

    def explain(self, images: Tensor, start: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of images (B,1,H,W) with their inverted blobs: counterfactuals, M (B,1,H,W), both searches' steps (B,), and
        the changed blobs' outlines (B,K,7)."""
        first_params = self.params.model_copy(update={"steps": self.params.first_steps})
        with torch.no_grad():
            shares = self.generator.shares(start)
            reconstruction = self.generator.render(start, shares=shares)
        # Of a scan whose reconstruction is called healthy already nothing would change, and any blob were k*.
        first = unrestricted(self.generator, self.context.classifier, start, first_params, images - reconstruction)
        region = choose_region(start, first.layout, self.spread, self.params.region)
        step = RegionStep(self, images, start, region, shares, reconstruction)
        found = step.restricted() if self.params.step == "restricted_cf" else step.literal(first)
        with torch.no_grad():
            counterfactual, mask = step.composite(found.layout, torch.arange(len(images), device=images.device))
        return counterfactual.clamp(-1, 1), mask, first.steps + found.steps, outlines(found.layout, region)


class RegionStep:
    """The second search, of B images (B,1,H,W) with their inverted blobs, what is seen of these where (shares,
    (B,K+1,H,W)), the reconstructions (B,1,H,W), and the regions."""

    def __init__(self, method: Method, images: Tensor, start: Layout, region: Region, shares: Tensor,
                 reconstruction: Tensor):
        self.params, self.generator, self.observer = method.params, method.generator, method.observer
        self.images, self.start, self.region = images, start, region
        self.shares, self.reconstruction = shares, reconstruction
        with torch.no_grad():
            self.view: View = self.observer(images)  # the scans don't change: seen once

    def composite(self, layout: Layout, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The counterfactual (R,1,H,W) of the blobs of images `rows` (R,), and M (R,1,H,W), recomputed for them.

        Where M is 0 the scan's own values stand, bit for bit.
        """
        shares, images = self.generator.shares(layout), self.images[rows]
        made = self.generator.render(layout, shares=shares)
        mask = region_mask(self.shares[rows], shares, self.region.chosen[rows])
        if self.params.composite == "none":
            return clamped(made), mask
        if self.params.composite == "residual":  # the inversion's error cancels
            inside = images + mask * (made - self.reconstruction[rows])
        else:
            inside = (1 - mask) * images + mask * made
        return torch.where(mask > 0, clamped(inside), images), mask

    def closeness(self, layout: Layout, rows: Tensor) -> tuple[View, View, Tensor]:
        """How the classifier sees the counterfactuals of images `rows` (R,), and the scans; their weighted distance."""
        image, view = self.composite(layout, rows)[0], self.view.rows(rows)
        seen, pixel = self.observer(image), (image - self.images[rows]).square().mean(dim=(1, 2, 3))
        return seen, view, (self.params.lambda_perceptual * self.observer.perceptual(seen, view)
                            + self.params.lambda_pixel * pixel)

    def restricted(self) -> Found:
        """A counterfactual from the inverted blobs on, in which only the region's blobs change."""
        def objective(layout: Layout, rows: Tensor) -> Trial:
            seen, _, distance = self.closeness(layout, rows)
            moved = self.params.proximity * change(layout, self.start.rows(rows), self.params.mode)
            return Trial(toward_healthy(seen.logits) + moved + distance, seen.logits, distance)

        return search(self.start, objective, self.params, free=self.region.chosen)

    def literal(self, first: Found) -> Found:
        """Equation 4 as printed, from the first search's result on with all other blobs put back."""
        def objective(layout: Layout, rows: Tensor) -> Trial:
            seen, view, distance = self.closeness(layout, rows)
            loss = (distance + self.params.lambda_decision * self.observer.decision(seen, view)
                    + self.params.lambda_proximity * 6 * layout_distance(layout, self.start.rows(rows)))
            return Trial(loss, seen.logits, distance)

        return search(self.start, objective, self.params, begin=first.layout, free=self.region.chosen,
                      keep="last_healthy")

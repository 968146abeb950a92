"""TACE (Tumor-Aware Counterfactual Explanations): OCTET, then only its most changed blob and what overlaps it.

The paper's equation 4 repeats equation 3 and has no term that flips the decision. `restricted_cf` reads it as a search
for a counterfactual among the blobs of the region; `literal_eq4` starts at OCTET's result, puts all other blobs back,
minimises equation 4 as printed and keeps the last image that is still called healthy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flipside.artifacts.explanations import BLOBS, ROI, STEPS, Extra
from flipside.classifiers.networks.perceptual import View
from flipside.generators.codes.blobs import Layout
from flipside.generators.codes.reconstruction import layout_distance, observer_of
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.method import Context
from flipside.methods.latent.blob_method import BlobMethod
from flipside.methods.latent.composite import Composite, compose
from flipside.methods.latent.regions import (
    Region,
    RegionParams,
    choose_region,
    estimate_spreads,
    gate_noise,
    mask_region,
    outline_blobs,
    score_by_logit,
    score_changes,
)
from flipside.methods.latent.search import (
    Found,
    SearchParams,
    Trial,
    healthy_loss,
    measure_change,
    search,
    search_all_blobs,
)

RENDERED_AT_ONCE = 128  # images with one blob put back


class TaceParams(SearchParams):
    """Section `methods.tace`."""

    needs: Literal["data/latents/blobgan"]
    """Folder of the inverted slices, with their generator."""
    first_steps: int = Field(ge=1)
    """Steps of the first search, among all blobs; `steps` is of the second, among those of the region."""
    region: RegionParams
    """Which blobs form the region."""
    step: Literal["restricted_cf", "literal_eq4"]
    """The second search. restricted_cf: for a counterfactual among the region's blobs; literal_eq4: the paper's
    equation 4 as printed, which has no term that flips the decision."""
    noise: Literal["gated", "kept"]
    """What the inversion has found in the renderer's noise maps. gated: where blobs may change it is left out once they
    do, since a lesion's detail is in it, in the first search and in the second; kept: it stays, whatever they do."""
    composite: Composite
    """What stands inside the region. residual: the scan plus the change of the reconstruction; replace: the generator's
    image; none: the generator's image everywhere (the paper says nothing of a composite)."""
    lambda_perceptual: float = Field(ge=0)
    """Weight of the perceptual distance between scan and counterfactual in the second search."""
    lambda_pixel: float = Field(ge=0)
    """Weight of the mean squared difference between scan and counterfactual in the second search."""
    lambda_decision: float = Field(ge=0)
    """literal_eq4 alone: weight of the distance between the classifier's features, which pulls the counterfactual back
    to the scan's class."""
    lambda_proximity: float = Field(ge=0)
    """literal_eq4 alone: weight of the blobs' summed squared change over six groups; OCTET's code: 0.1."""


class Tace(BlobMethod):
    """OCTET's search, then a second one among the blobs of a region."""

    Params = TaceParams
    extras = (STEPS, ROI, BLOBS)
    params: TaceParams

    def __init__(self, params: TaceParams, context: Context):
        super().__init__(params, context)
        self.observer = observer_of(context.classifier)
        self.spread = None if params.region.rank == "logit" else estimate_spreads(
            self.generator, context.seed, context.runtime.device)

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,C,H,W) in [-1,1] that were inverted as `rows` (B,) of the store.

        A scan that is called healthy by the margin is its own counterfactual and has no region.
        """
        with torch.no_grad():
            searched = self.params.unfinished(self.context.classifier(images))  # (B,)
        counterfactual, mask = images.clone(), torch.zeros_like(images[:, :1])
        blobs = torch.zeros(len(images), self.latents.layout.blobs, 7, device=images.device)
        steps = torch.zeros(len(images), dtype=torch.long, device=images.device)
        if searched.any():
            start = self.latents.of(rows[searched.cpu()], images.device)
            made = self.explain(images[searched], start)
            counterfactual[searched], mask[searched], steps[searched], blobs[searched] = made
        extras: dict[Extra, Tensor] = {STEPS: steps, BLOBS: blobs}
        if self.params.composite != "none":  # without compositing the whole scan changes
            extras[ROI] = mask
        return ExplanationBatch.from_counterfactual(images, counterfactual, extras)

    def explain(self, images: Tensor, start: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of images (B,C,H,W) with their inverted blobs: counterfactuals, M (B,1,H,W), both searches' steps (B,), and
        the changed blobs' outlines (B,K,7)."""
        with torch.no_grad():
            shares = self.generator.shares(start)
            scene = Scene(self, images, start, shares, self.generator.render(start, shares=shares))
        # Where the reconstruction is called healthy already, nothing would change in it and any blob could be k*: so
        # the decision on the scan is the one to flip, unless nothing of the scan is in what is scored.
        first = search_all_blobs(scene.whole, self.context.classifier, start,
                                 self.params.model_copy(update={"steps": self.params.first_steps}))
        region = choose_region(start, first.layout, self.score_blobs(first.layout, scene), self.params.region)
        step = RegionStep(self, scene, region)
        found = step.restricted() if self.params.step == "restricted_cf" else step.literal(first)
        with torch.no_grad():
            counterfactual, mask = step.composite(found.layout, torch.arange(len(images), device=images.device))
        return counterfactual.clamp(-1, 1), mask, first.steps + found.steps, outline_blobs(found.layout, region)

    def score_blobs(self, layout: Layout, scene: Scene) -> Tensor:
        """What the region starts from: the rank (B,K) of the blobs that the first search has found."""
        if self.spread is not None:
            return score_changes(layout, scene.start, self.spread)
        return score_by_logit(
            layout, scene.start,
            lambda blobs, rows, changed: self.context.classifier(scene.part(blobs, rows, changed)[0]).float(),
            RENDERED_AT_ONCE)


class Scene:
    """B images (B,C,H,W) with their inverted blobs, the blobs' shares of each pixel (B,K+1,H,W), and the
    reconstructions (B,C,H,W)."""

    def __init__(self, method: Tace, images: Tensor, start: Layout, shares: Tensor, reconstruction: Tensor):
        self.params, self.generator = method.params, method.generator
        self.images, self.start, self.shares, self.reconstruction = images, start, shares, reconstruction

    def render(self, layout: Layout, rows: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        """What the generator makes (R,C,H,W) of the blobs of images `rows` (R,) that may have changed where `changed`
        (R,K+1), and M (R,1,H,W) of these."""
        shares = self.generator.shares(layout)
        mask = mask_region(self.shares[rows], shares, changed)
        if self.params.noise == "gated":
            opened = differing(layout, self.start.rows(rows)).view(-1, 1, 1, 1)
            noise = gate_noise(layout.noise, self.generator.renderer.noise_sides, mask * opened)
            layout = replace(layout, noise=noise)
        return self.generator.render(layout, shares=shares), mask

    def whole(self, layout: Layout, rows: Tensor) -> Tensor:
        """The counterfactuals (R,C,H,W) of the first search, in which all blobs may change."""
        every = torch.ones_like(layout.size, dtype=torch.bool)
        every[:, 0] = False  # the background has no place
        composite: Composite = "none" if self.params.composite == "none" else "residual"
        return compose(composite, self.images[rows], self.render(layout, rows, every)[0], self.reconstruction[rows])

    def part(self, layout: Layout, rows: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        """The counterfactuals (R,C,H,W) in which `changed` blobs (R,K+1) may change, and M (R,1,H,W), recomputed.

        Where M is 0 the scan's own values stand, bit for bit, unless `composite` is none.
        """
        made, mask = self.render(layout, rows, changed)
        return compose(self.params.composite, self.images[rows], made, self.reconstruction[rows], mask), mask


class RegionStep:
    """The second search, of a scene's images with their regions."""

    def __init__(self, method: Tace, scene: Scene, region: Region):
        self.params, self.observer, self.scene, self.region = method.params, method.observer, scene, region
        self.images, self.start = scene.images, scene.start
        with torch.no_grad():
            self.view: View = self.observer(self.images)  # the scans don't change: computed once

    def composite(self, layout: Layout, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The counterfactuals (R,C,H,W) of the blobs of images `rows` (R,), and M (R,1,H,W)."""
        return self.scene.part(layout, rows, self.region.chosen[rows])

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
            moved = self.params.proximity * measure_change(layout, self.start.rows(rows), self.params.mode)
            return Trial(healthy_loss(seen.logits) + moved + distance, seen.logits, distance)

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


def differing(layout: Layout, start: Layout) -> Tensor:
    """Which images' blobs differ from those at the start, (B,) bool."""
    other = start.groups()
    return torch.stack([(value.detach() != other[name]).flatten(1).any(dim=1)
                        for name, value in layout.groups().items()]).any(dim=0)

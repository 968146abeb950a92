"""The inpainter of counterfactual impact analysis (Major et al. 2020, arXiv:2004.01610): it learns healthy tissue.

Trained on the training split's healthy slices alone, without the classifier, in two phases: with batch norm, then with
the encoder's batch norm frozen and a smaller learning rate. Losses of Liu et al. 2018, section 3.3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.core import ranks
from flipside.core.checkpoint import Scratch
from flipside.core.runtime import generator_for
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.generator import GeneratorParams, TrainedGenerator
from flipside.generators.base.state import Trained, TrainingState, update
from flipside.generators.nn.partial_convolution import InpaintingUNet
from flipside.generators.nn.vgg import VggFeatures, gram


class ImpactParams(GeneratorParams):
    """Section `generators.impact`."""

    channels: list[int] = Field(min_length=2)
    """Channels of the encoder, one block (factor 2 in size) each."""
    hole_size: int = Field(ge=1)
    """Side of one hole in pixels."""
    max_holes: int = Field(ge=1)
    """Most holes in an image; each image has 1 to this many."""
    learning_rate: float = Field(gt=0)
    """Adam's learning rate in the first phase."""
    steps: int = Field(ge=1)
    """Training steps of the first phase."""
    fine_tuning_learning_rate: float = Field(gt=0)
    """Adam's learning rate in the second phase."""
    fine_tuning_steps: int = Field(ge=0)
    """Training steps of the second phase, in which the encoder's batch norm is frozen."""
    perceptual_features: Literal["vgg16", "none"]
    """Network of the perceptual and style losses: VGG16 with ImageNet weights from torch hub's cache, or none."""
    lambda_valid: float = Field(ge=0)
    """Weight of the mean absolute difference outside the holes."""
    lambda_hole: float = Field(ge=0)
    """Weight of the mean absolute difference in the holes."""
    lambda_perceptual: float = Field(ge=0)
    """Weight of the difference of VGG16's maps."""
    lambda_style: float = Field(ge=0)
    """Weight of the difference of their Gram matrices."""
    lambda_total_variation: float = Field(ge=0)
    """Weight of the total variation in the holes and one pixel around them."""


class Impact(TrainedGenerator[ImpactParams]):
    """The inpainter, trained in two phases on healthy slices."""

    Params = ImpactParams
    network: InpaintingUNet

    def __init__(self, params: ImpactParams, classifier: Classifier, lesion_fraction: float):
        super().__init__(params, classifier, lesion_fraction)
        self.network = self.build(self.architecture_of(params, classifier))

    @staticmethod
    def architecture_of(params: ImpactParams, classifier: Classifier) -> dict[str, Any]:
        return {"channels": params.channels, "image_channels": classifier.image_channels}

    @staticmethod
    def build(architecture: dict[str, Any]) -> InpaintingUNet:
        return InpaintingUNet(**architecture)

    def train(self, data: TrainingSlices, seed: int, scratch: Scratch) -> Trained:
        """Both phases; the slices are the training split's that are labelled healthy.

        Raises ValueError where there is none, FileNotFoundError without VGG16's weights where they are asked for.
        """
        healthy = (~data.labels).nonzero().squeeze(1)
        if len(healthy) == 0:
            raise ValueError("the inpainter learns from healthy slices, and the training split has none: add scans, or "
                             "take `impact` out of `generators` and `methods`")
        params, runtime = self.params, data.runtime
        network = runtime.place(self.network).train()
        ranks.over_whole_batches(network)
        features = runtime.place(VggFeatures()) if params.perceptual_features == "vgg16" else None
        optimizer = torch.optim.Adam(network.parameters(), params.learning_rate, fused=True)
        total = params.steps + params.fine_tuning_steps
        state = TrainingState(scratch, total)
        state.restore(network=network, optimizer=optimizer)
        for step in range(state.step, total):
            if step >= params.steps:
                network.freeze_encoder_norms()
            optimizer.param_groups[0]["lr"] = (params.learning_rate if step < params.steps
                                               else params.fine_tuning_learning_rate)
            generator = generator_for(seed, step)
            rows = healthy[torch.randint(len(healthy), (params.batch_size,), generator=generator)]
            images = data.batch(rows, generator).images
            height, width = images.shape[2:]
            holes = draw_holes(len(images), (height, width), params, generator).to(runtime.device)
            images, holes = ranks.share(images), ranks.share(holes)
            with runtime.autocast():
                losses = loss_terms(params, network, features, images, holes)
            update(optimizer, *losses.values())
            state.record(losses, network=network, optimizer=optimizer)
        return state.finish(network)


def draw_holes(count: int, size: tuple[int, int], params: ImpactParams, generator: Generator) -> Tensor:
    """Holes (count,1,H,W), 1 in a hole, else 0: squares, alone or grown together, as an optimised mask may have them.

    Each image has 1 to `max_holes` squares, and a probability of its own (uniform) with which a square is put beside an
    earlier one instead of anywhere ("both single small holes and larger clusters", Major et al. section 3).
    """
    side = min(params.hole_size, *size)
    limits = torch.tensor([size[0] - side, size[1] - side])  # greatest row and column of a square's corner
    numbers = torch.randint(1, params.max_holes + 1, (count,), generator=generator)
    clusters = torch.rand(count, generator=generator)
    corners = (torch.rand(count, params.max_holes, 2, generator=generator) * (limits + 1)).long()
    beside = torch.rand(count, params.max_holes, generator=generator) < clusters[:, None]
    steps = torch.tensor([[-side, 0], [side, 0], [0, -side], [0, side]])
    directions = steps[torch.randint(4, (count, params.max_holes), generator=generator)]  # (count,max_holes,2)
    earlier = torch.rand(count, params.max_holes, generator=generator)
    images = torch.arange(count)
    for number in range(1, params.max_holes):
        neighbour = corners[images, (earlier[:, number] * number).long()] + directions[:, number]
        neighbour = torch.minimum(neighbour.clamp(min=0), limits)
        corners[:, number] = torch.where(beside[:, number, None], neighbour, corners[:, number])
    marks = torch.zeros(count, 1, *size)
    used = torch.arange(params.max_holes) < numbers[:, None]  # (count,max_holes)
    marks[images[:, None].expand_as(used)[used], 0, corners[..., 0][used], corners[..., 1][used]] = 1
    return F.max_pool2d(F.pad(marks, (side - 1, 0, side - 1, 0)), side, stride=1)  # a corner becomes its square


def loss_terms(params: ImpactParams, network: InpaintingUNet, features: VggFeatures | None, images: Tensor,
               holes: Tensor) -> dict[str, Tensor]:
    """The weighted loss terms by name, for images (B,C,H,W) and holes (B,1,H,W); Liu et al. equations 2 to 7, means
    over the channels too.

    Perceptual and style terms exist where `features` do.
    """
    validity = 1 - holes
    output = network(images * validity, validity).float()
    composite = images * validity + output * holes
    difference = (output - images).abs()
    region = F.max_pool2d(holes, 3, stride=1, padding=1)  # the hole and one pixel around it
    rows = (composite[..., 1:, :] - composite[..., :-1, :]).abs() * region[..., 1:, :] * region[..., :-1, :]
    columns = (composite[..., :, 1:] - composite[..., :, :-1]).abs() * region[..., :, 1:] * region[..., :, :-1]
    terms = {
        "valid": params.lambda_valid * (difference * validity).mean(),
        "hole": params.lambda_hole * (difference * holes).mean(),
        "total_variation": params.lambda_total_variation * (rows.sum() + columns.sum()) / composite.numel(),
    }
    if features is not None:
        with torch.no_grad():
            wanted = features(images)
        perceptual, style = images.new_zeros(()), images.new_zeros(())
        for made in (output, composite):
            for found, target in zip(features(made), wanted, strict=True):
                perceptual = perceptual + F.l1_loss(found, target)
                style = style + F.l1_loss(gram(found), gram(target))
        terms |= {"perceptual": params.lambda_perceptual * perceptual, "style": params.lambda_style * style}
    return terms

"""Maps of classifiers whose layers have strides lie where the network looked, not half a cell beside it."""

import numpy as np
import pytest
import torch
from torch import nn

from flipside.classifiers.networks.backbones import Classifier, build_classifier
from flipside.core.paths import CLASSIFIER
from flipside.methods.base import cells
from flipside.methods.base.feature_maps import FeatureMapParams
from flipside.methods.base.maps import MapParams, upsample
from flipside.methods.base.method import Context
from flipside.methods.cam import CAM
from flipside.methods.grad_cam import GradCAM
from flipside.methods.layer_cam import LayerCAM

SIZE = 64


class Same(nn.Conv2d):
    """As timm's layers of TensorFlow: they pad inside, more behind than in front."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


KINDS = {  # layers that halve the size
    "padded": lambda: nn.Conv2d(1, 1, 3, 2, 1, bias=False),
    "inside": lambda: Same(1, 1, 3, 2, 0, bias=False),
    "pooled": lambda: nn.MaxPool2d(3, 2, 1),
    "patches": lambda: nn.Conv2d(1, 1, 2, 2, bias=False),
}
BESIDE = {"padded": 3.5, "inside": -3.5, "pooled": 3.5, "patches": 0.0}  # pixels, behind three of them


def averaging(kind, layers=3):
    """A classifier whose logit is the brightness, seen through averages alone."""
    blur = nn.Conv2d(1, 1, 5, 1, 2, bias=False)  # so that no layer steps over anything
    trunk = nn.Sequential(blur, *(KINDS[kind]() for _ in range(layers)))
    for module in trunk:
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    classifier = Classifier(trunk, 1)
    nn.init.ones_(classifier.linear.weight)
    return classifier.eval().requires_grad_(False)


def blobs(size=SIZE):
    """Images (B,1,H,W) of one round blob each, at places (B,2) that fill a cell of 8 pixels evenly."""
    places = torch.tensor([(row, column) for row in np.arange(24, 40, 2.0) for column in (28.0, 31.0, 34.0)],
                          dtype=torch.float32)
    grid = torch.arange(size).float()
    rows, columns = ((grid - places[:, axis, None]) ** 2 for axis in (0, 1))
    return torch.exp(-(rows[:, :, None] + columns[:, None, :]) / (2 * 5.0**2))[:, None], places


def centroids(maps):
    """(B,2) of maps (B,H,W)."""
    mass, grid = maps.sum(dim=(1, 2)), torch.arange(maps.shape[1]).float()
    return torch.stack([(maps.sum(dim=3 - axis) * grid).sum(dim=1) / mass for axis in (1, 2)], dim=1)


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("method", [LayerCAM, GradCAM, CAM])
def test_a_blob_is_marked_where_it_is(method, kind, runtime, monkeypatch):
    images, places = blobs()
    params = (MapParams if method is CAM else FeatureMapParams)(
        needs=CLASSIFIER, **({} if method is CAM else {"strides": "last"}))
    made = method(params, Context(averaging(kind), runtime, 0))
    error = (centroids(made.maps(images, torch.arange(len(images)))) - places).mean(dim=0)
    assert error.abs().max() < 0.3
    monkeypatch.setattr(made, "on_image", upsample)  # plain enlargement, as published
    error = (centroids(made.maps(images, torch.arange(len(images)))) - places).mean(dim=0)
    torch.testing.assert_close(error, torch.full((2,), BESIDE[kind]), atol=0.3, rtol=0)


@pytest.mark.parametrize(("name", "step", "first"), [("resnet18", 32.0, 0.0), ("densenet121", 32.0, 14.0),
                                                     ("mobilenet_v2", 32.0, 0.0), ("small_resnet", 8.0, 3.5)])
def test_known_networks(name, step, first):
    network = build_classifier(name, 8, pretrained=False).eval()
    for pixels, layers in zip((128, 192), cells.find_layers(network, torch.zeros(1, 1, 128, 192)), strict=True):
        assert cells.place_cells(layers, round(pixels / step), pixels) == cells.Axis(first, step)


@torch.no_grad()
def test_the_place_is_the_middle_of_what_a_cell_sees():
    """Of any layers, in any order and of odd sizes: by the gradient, which is the receptive field."""
    for size, layers in [(61, [nn.Conv2d(1, 1, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(1, 1, 3, 1, 0)]),
                         (60, [nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, 2, 2, dilation=2), nn.Conv2d(1, 1, 4, 2, 1)])]:
        network = nn.Sequential(*layers)
        for module in network:
            if isinstance(module, nn.Conv2d):
                nn.init.ones_(module.weight)
        image = torch.rand(1, 1, size, size).requires_grad_()
        with torch.enable_grad():
            maps = network(image)
            middle = maps.shape[-1] // 2
            seen, = torch.autograd.grad(maps[0, 0, middle, middle], image)
        support = torch.nonzero(seen[0, 0].any(dim=1)).float()
        axis = cells.place_cells(cells.find_layers(network, image)[0], maps.shape[-1], size)
        assert abs(float(support.min() + support.max()) / 2 - (axis.first + axis.step * middle)) <= 1.0


def test_cells_in_the_middle_are_drawn_as_before(runtime):
    network = averaging("patches")
    maps, images = torch.rand(2, 8, 8), torch.zeros(2, 1, SIZE, SIZE)
    assert torch.equal(cells.OnImage(network)(maps, images), upsample(maps, images))

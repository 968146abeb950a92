"""Grad-CAM, LayerCAM and Score-CAM on every backbone: against hand-written autograd, loops and captum."""

import copy

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.paths import CLASSIFIER
from flipside.methods.base.feature_maps import FeatureMapParams
from flipside.methods.base.maps import MapParams
from flipside.methods.base.method import Context
from flipside.methods.cam import CAM
from flipside.methods.grad_cam import GradCAM
from flipside.methods.layer_cam import LayerCAM
from flipside.methods.score_cam import ScoreCAM, ScoreCAMParams
from tests.methods.slow import interpolated

# Of each backbone the modules that give its last maps at 1/2 and at 1/4 of the image's side.
MODULES = {
    "small_resnet": ("3", "4"),
    "resnet18": ("2", "4"),
    "densenet121": ("0.relu0", "0.transition1.conv"),
    "efficientnet_v2_s": ("1", "2"),
    "mobilenet_v2": ("1", "3"),
}
ROWS = torch.arange(2)


@pytest.fixture(scope="module")
def networks():
    """Each backbone for images of three channels, with statistics of its own so that its maps differ."""
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = build_classifier(name, 8, pretrained=False, image_channels=3)
            with torch.no_grad():
                for module in made[name].modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.momentum = None
                made[name].train()(torch.rand(4, 3, 64, 64) * 2 - 1)
            made[name].eval().requires_grad_(False)
        return made[name]

    return make


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def params(strides):
    return FeatureMapParams(needs=CLASSIFIER, strides=strides)


def by_hand(network, module, image):
    """A module's output (C,h,w) for one image (1,C,H,W), and the gradient of the logit (C,h,w) there."""
    kept = []
    with module.register_forward_hook(lambda _module, _inputs, output: kept.append(output.clone())):
        network(image)
    leaf = kept[0].requires_grad_()
    with module.register_forward_hook(lambda _module, _inputs, _output: leaf * 1):  # in the output's place
        network(image)[0].backward()
    return leaf.detach()[0], leaf.grad[0]


def assert_same_form(found, expected):
    """Equal within 1e-6 of the greatest value: gradients of untrained networks are tiny."""
    scale = float(expected.max())
    assert scale > 0
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", MODULES)
def test_grad_cam_and_layer_cam_of_every_backbone(name, networks, images, runtime):
    network, images = copy.deepcopy(networks(name)).double(), images.double()  # float32 falls on either side of ReLU6
    context = Context(network, runtime, 0)
    modules = [network.trunk.get_submodule(path) for path in MODULES[name]]
    found = {kind: kind(params([2, 4]), context).coarse_maps(images) for kind in (GradCAM, LayerCAM)}
    for number, module in enumerate(modules):
        captum = LayerGradCam(network, module).attribute(images, relu_attributions=True)[:, 0].detach()
        assert_same_form(found[GradCAM][number], captum)
        for index in range(len(images)):
            maps, gradient = by_hand(network, module, images[index : index + 1])
            grad_cam, layer_cam = torch.zeros(2, *maps.shape[1:]).double()
            for channel, slope in zip(maps, gradient, strict=True):
                grad_cam += slope.mean() * channel
                layer_cam += slope.clamp(min=0) * channel
            for kind, total in ((GradCAM, grad_cam), (LayerCAM, layer_cam)):
                assert_same_form(found[kind][number][index], total.clamp(min=0))


@pytest.mark.parametrize("name", MODULES)
def test_the_last_maps_are_the_published_switch(name, networks, images, runtime):
    network = networks(name)
    context = Context(network, runtime, 0)
    features = network.features(images)
    weights = network.classifying_weights()
    positions = features[0, 0].numel()
    # Behind an average pool and one linear layer, Grad-CAM is CAM's positive part (section 3.1).
    weighted = torch.einsum("c,bchw->bhw", weights, features)
    found = GradCAM(params("last"), context).coarse_maps(images)[0]
    torch.testing.assert_close(found * positions, weighted.clamp(min=0), atol=1e-5, rtol=1e-3)
    weighted = torch.einsum("c,bchw->bhw", weights.clamp(min=0), features)
    found = LayerCAM(params("last"), context).coarse_maps(images)[0]
    torch.testing.assert_close(found * positions, weighted.clamp(min=0), atol=1e-5, rtol=1e-3)
    last = LayerCAM(params([8 if name == "small_resnet" else 32]), context).maps(images, ROWS)
    torch.testing.assert_close(LayerCAM(params("last"), context).maps(images, ROWS), last)


@pytest.mark.parametrize("baseline", ["mid_grey", "air"])
@pytest.mark.parametrize("strides", ["last", [2], [4]])
def test_score_cam_against_one_channel_at_a_time(strides, baseline, networks, images, runtime):
    network, value = networks("small_resnet"), {"mid_grey": 0.0, "air": -1.0}[baseline]
    trunk = network.trunk if strides == "last" else network.trunk[: 4 if strides == [2] else 5]
    expected = torch.zeros(2, 64, 64)
    for index, image in enumerate(images):
        for small in trunk(image[None])[0]:
            large = interpolated(small[None], 64)[0]
            spread = large.max() - large.min()
            mask = (large - large.min()) / spread if spread > 0 else torch.zeros_like(large)
            expected[index] += torch.sigmoid(network((image * mask + value * (1 - mask))[None]))[0] * large
    method = ScoreCAM(ScoreCAMParams(needs=CLASSIFIER, strides=strides, batch_size=3, baseline=baseline),
                      Context(network, runtime, 0))
    torch.testing.assert_close(method.maps(images, ROWS), expected.clamp(min=0), atol=1e-5, rtol=1e-4)


def test_several_strides_are_joined_by_the_geometric_mean(networks, images, runtime):
    context = Context(networks("small_resnet"), runtime, 0)
    parts = [LayerCAM(params([stride]), context)(images, ROWS, images).attribution for stride in (1, 2, 8)]
    joined = LayerCAM(params([1, 2, 8]), context).maps(images, ROWS)
    torch.testing.assert_close(joined, (parts[0] * parts[1] * parts[2]) ** (1 / 3), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("name", "size", "strides"), [
    ("small_resnet", (100, 60), "1, 2, 4, 8"), ("resnet18", (72, 56), "2, 4, 8, 16, 32"),
    ("densenet121", (36, 100), "2, 4, 8, 16, 32"), ("mobilenet_v2", (100, 64), "2, 4, 8, 16, 32"),
])
def test_a_stride_that_isnt_there_is_refused_with_those_that_are(name, size, strides, networks, runtime):
    method = GradCAM(params([2, 3]), Context(networks(name), runtime, 0))
    with pytest.raises(ValueError, match=rf"methods\.grad_cam\.strides .* stride 3, .* strides {strides} alone"):
        method.maps(torch.zeros(1, 3, *size), ROWS[:1])


def test_cam_has_no_other_layer(networks, images, runtime):
    network = networks("small_resnet")
    expected = torch.einsum("c,bchw->bhw", network.linear.weight[0], network.features(images))
    maps = CAM(MapParams(needs=CLASSIFIER), Context(network, runtime, 0)).maps(images, ROWS)
    torch.testing.assert_close(maps, interpolated(expected, 64), atol=1e-5, rtol=1e-4)

"""What losses compare: LPIPS as its package has it, the classifier's own maps under their own name."""

import pytest
import torch

from flipside.classifiers.networks.backbones import build_classifier
from flipside.classifiers.networks.perceptual import Observer, as_rgb, map_distance
from flipside.classifiers.networks.view import maps_by_size


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return build_classifier("small_resnet", 8, pretrained=False).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(2, 3, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1  # two batches of three


def test_without_weights_it_is_the_classifiers_maps(classifier, images):
    observer = Observer(classifier, None)
    one, other = observer(images[0]), observer(images[1])
    assert observer.name == "perceptual_clf"
    expected = map_distance(*(maps_by_size(classifier.trunk, part) for part in images))
    torch.testing.assert_close(observer.perceptual(one, other), expected)
    torch.testing.assert_close(one.logits, classifier(images[0]))
    torch.testing.assert_close(observer.decision(one, other), (one.features - other.features).square().mean(dim=1))
    assert observer.perceptual(one, one).abs().max() < 1e-6


def test_with_lpips_it_is_the_packages_distance(classifier, images):
    import lpips

    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    observer = Observer(classifier, network)
    assert observer.name == "lpips"
    found = observer.perceptual(observer(images[0]), observer(images[1]))
    expected = network(*(part.expand(-1, 3, -1, -1) for part in images)).flatten()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(observer(images[0]).rows(torch.tensor([1])).logits, classifier(images[0])[1:2])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lpips_takes_three_channels_as_they_are_and_others_one_by_one_as_grey(channels):
    import lpips

    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval().requires_grad_(False)
    own = build_classifier("small_resnet", 8, pretrained=False, image_channels=channels).eval().requires_grad_(False)
    observer = Observer(own, network)
    one, other = torch.rand(2, 5, channels, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    views = observer(one), observer(other)
    if channels == 3:
        expected = network(one, other).flatten()
    else:
        expected = torch.stack([network(one[:, [number] * 3], other[:, [number] * 3]).flatten()
                                for number in range(channels)]).mean(dim=0)
    torch.testing.assert_close(observer.perceptual(*views), expected, atol=1e-6, rtol=1e-4)
    some = torch.tensor([3, 0])
    torch.testing.assert_close(observer.perceptual(views[0].rows(some), views[1].rows(some)), expected[some],
                               atol=1e-6, rtol=1e-4)
    assert as_rgb(one).shape[1] == 3

"""Partial convolutions against a slow reference, and what the inpainting U-Net promises of any image size."""

import pytest
import torch
import torch.nn.functional as F

from flipside.core.runtime import generator_for
from flipside.generators.nn.partial_convolution import InpaintingUNet, PartialConv2d


def slow_partial_convolution(x, validity, weight, bias, stride):
    """Liu et al. equation 1, window by window; x and validity (C,H,W), one validity per channel."""
    outputs, _, kernel, _ = weight.shape
    pad = kernel // 2
    x, validity = (F.pad(each, (pad,) * 4) for each in (x, validity))
    rows = range(0, x.shape[1] - kernel + 1, stride)
    columns = range(0, x.shape[2] - kernel + 1, stride)
    result, updated = torch.zeros(outputs, len(rows), len(columns)), torch.zeros(len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = slice(row, row + kernel), slice(column, column + kernel)
            seen, known = x[:, *window], validity[:, *window]
            if known.sum() > 0:
                result[:, i, j] = (weight * (seen * known)).sum(dim=(1, 2, 3)) * known.numel() / known.sum() + bias
                updated[i, j] = 1
    return result, updated


@pytest.mark.parametrize(("groups", "kernel", "stride", "size"), [
    ([1], 3, 1, (6, 5)), ([2], 7, 2, (9, 8)), ([3, 1], 3, 1, (7, 7)), ([2, 2], 5, 2, (6, 11)),
])
def test_partial_convolution_equals_the_slow_one(groups, kernel, stride, size):
    generator = generator_for(2)
    layer = PartialConv2d(groups, 4, kernel, stride)
    torch.nn.init.normal_(layer.bias, generator=generator)
    x = torch.randn(2, sum(groups), *size, generator=generator)
    validity = (torch.rand(2, len(groups), *size, generator=generator) > 0.5).float()
    validity[:, :, : size[0] // 2 + 1, : size[1] // 2 + 1] = 0  # windows that know nothing
    result, updated = layer(x, validity)
    for image in range(2):
        per_channel = validity[image].repeat_interleave(torch.tensor(groups), dim=0)
        expected = slow_partial_convolution(x[image], per_channel, layer.convolution.weight, layer.bias, stride)
        torch.testing.assert_close(result[image], expected[0], atol=1e-4, rtol=1e-4)
        assert torch.equal(updated[image, 0], expected[1])


def test_a_known_window_is_an_ordinary_convolution():
    layer = PartialConv2d([2], 3, 3)
    x = torch.randn(1, 2, 6, 6, generator=generator_for(0))
    result, _ = layer(x, torch.ones(1, 1, 6, 6))
    plain = F.conv2d(x, layer.convolution.weight, layer.bias, padding=1)
    torch.testing.assert_close(result[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1])


def test_what_lies_in_a_hole_is_not_seen():
    torch.manual_seed(0)
    network = InpaintingUNet([4, 8]).eval()
    images = torch.rand(1, 1, 16, 16, generator=generator_for(1))
    holes = torch.zeros_like(images)
    holes[..., 4:9, 6:10] = 1
    with torch.no_grad():
        one, other = (network(each, 1 - holes) for each in (images, images + 5 * holes))
    assert torch.equal(one, other)


def test_a_validity_between_0_and_1_has_a_gradient():
    layer = PartialConv2d([1], 2, 3).double()
    x = torch.randn(1, 1, 5, 5, dtype=torch.double, generator=generator_for(4))
    validity = (torch.rand(1, 1, 5, 5, dtype=torch.double, generator=generator_for(5)) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: layer(x, given)[0], validity)


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (20, 33)])
def test_any_image_size_comes_back(size):
    images = torch.rand(2, 1, *size, generator=generator_for(1)) * 2 - 1
    holes = torch.zeros_like(images)
    holes[..., 3:7, 3:9] = 1
    composite = InpaintingUNet([4, 8, 8])(images, 1 - holes)
    assert composite.shape == images.shape


def test_images_too_small_for_the_blocks_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"\(16, 16\).*halved 4 times.*generators\.impact\.channels"):
        InpaintingUNet([4, 4, 4, 4])(torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16))


def test_known_pixels_stay_and_holes_stay_in_range():
    torch.manual_seed(1)
    network = InpaintingUNet([4, 8])
    torch.nn.init.constant_(network.decoder[-1].convolution.bias, 3.0)
    images = torch.rand(2, 1, 16, 16, generator=generator_for(1)) * 2 - 1
    holes = torch.zeros_like(images)
    holes[:, :, 2:6, 2:6] = 1
    composite = network.inpaint(images, holes)
    assert torch.equal(composite[holes == 0], images[holes == 0])
    assert composite.max() <= 1 and composite[holes == 1].mean() > 0.9
    composite.sum().backward()  # beyond the range, and yet there is a gradient
    assert network.decoder[-1].convolution.bias.grad.item() == pytest.approx(holes.sum().item(), rel=1e-4)


def test_frozen_norms_keep_their_statistics_and_only_the_encoder_has_them():
    network = InpaintingUNet([4, 8, 8]).train()
    network.freeze_encoder_norms()
    before = {name: value.clone() for name, value in network.state_dict().items() if "running_mean" in name}
    network(torch.randn(4, 1, 16, 16, generator=generator_for(3)), torch.ones(4, 1, 16, 16)).sum().backward()
    changed = {name for name, value in before.items() if not torch.equal(network.state_dict()[name], value)}
    assert changed == {name for name in before if name.startswith("decoder")}
    assert network.encoder[1].norm.weight.grad is None and network.decoder[0].norm.weight.grad is not None

"""The family's networks against the published parameter counts and their defining behaviour."""

from functools import partial

import pytest
import torch

from flipside.generators.nn.blocks import (
    ConditionalBatchNorm,
    Decoder,
    Encoder,
    FeatureBatchNorm,
    ProjectionDiscriminator,
    spectral_norm,
)
from flipside.generators.nn.networks import PerturbationNetwork

PUBLISHED = [64, 128, 256, 512, 1024]
TWO_CONDITIONS = partial(ConditionalBatchNorm, conditions=2)


def build_generator(channels, skips, fuse, upsampling="nearest", spectral_norm=False):
    return PerturbationNetwork(channels, skips, fuse, upsampling, spectral_norm, "differentiable", TWO_CONDITIONS)


def millions(module):
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


def test_published_widths_have_the_published_parameter_counts():
    assert millions(Encoder(PUBLISHED, None)) == 19.58
    assert [millions(Decoder(PUBLISHED, skips, TWO_CONDITIONS, "nearest", None)) for skips in range(5)] == [
        30.04, 32.66, 33.32, 33.48, 33.53]
    assert millions(ProjectionDiscriminator(PUBLISHED, 2, True, "differentiable")) == 38.42
    assert millions(ProjectionDiscriminator(PUBLISHED, 2, False, "differentiable")) == 19.54


@pytest.mark.parametrize("fuse", ["tanh", "clamp", "none"])
@pytest.mark.parametrize("skips", [0, 2])
def test_generator_keeps_shape_and_range(fuse, skips):
    generator = build_generator([4, 8, 8], skips, fuse, "bilinear", spectral_norm=True)
    images = torch.rand(3, 1, 32, 32) * 2 - 1
    counterfactual = generator(images)
    assert counterfactual.shape == images.shape
    assert counterfactual.abs().max() <= 1 + 1e-6


def test_clamp_fuse_without_perturbation_is_the_image_bit_for_bit():
    generator = build_generator([4, 8], 1, "clamp")
    torch.nn.init.zeros_(generator.decoder.head.weight)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    assert torch.equal(generator(images), images)


def test_clamp_fuse_has_a_gradient_where_the_sum_left_the_range():
    generator = build_generator([4, 8], 1, "clamp")
    images = torch.ones(1, 1, 16, 16)
    generator.decoder.head.weight.data.abs_()  # the perturbation is positive: everything is above 1
    counterfactual = generator(images)
    assert counterfactual.detach().max() <= 1 + 1e-6
    counterfactual.sum().backward()
    assert generator.decoder.head.weight.grad.abs().sum() > 0


def test_image_size_that_cannot_be_halved_is_refused_with_the_key():
    generator = build_generator([4, 8, 8], 0, "tanh")
    with pytest.raises(ValueError, match=r"30, 30.*multiple of 8.*`channels`"):
        generator(torch.zeros(1, 1, 30, 30))


def test_more_skips_than_blocks_are_refused():
    with pytest.raises(ValueError, match="skips"):
        Decoder([4, 8], 2, TWO_CONDITIONS, "nearest", None)


def test_conditional_batch_norm_by_hand():
    layer = ConditionalBatchNorm(1, 2).train()
    layer.scale.weight.data = torch.tensor([[1.0], [3.0]])
    layer.shift.weight.data = torch.tensor([[0.0], [0.5]])
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)  # mean 0, variance 1
    y = layer(x, torch.tensor([0, 1])).flatten()
    assert torch.allclose(y, torch.tensor([-1.0, 3.5]), atol=1e-4)


def test_feature_batch_norm_by_hand():
    layer = FeatureBatchNorm(1, 2, "one").train()
    layer.linear.weight.data = torch.tensor([[2.0, 0.0], [0.0, 0.5]])  # scale from the first feature, shift the second
    layer.linear.bias.data[1] = 0.25
    x = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)  # mean 0, variance 1
    y = layer(x, torch.tensor([[0.0, 0.0], [1.0, 3.0]])).flatten()
    assert torch.allclose(y, torch.tensor([-1.0 + 0.25, 3.0 + 0.25 + 1.5]), atol=1e-4)


def test_feature_scale_starts_at_one_or_about_zero():
    torch.manual_seed(0)
    x, no_features = torch.randn(8, 6, 4, 4), torch.zeros(8, 200)
    one, default = (FeatureBatchNorm(6, 200, start)(x, no_features).std().item() for start in ("one", "default"))
    assert one == pytest.approx(1.0, abs=0.1) and default < 0.1


def test_classifier_features_in_the_published_decoder_cost_15_1_million_parameters():
    with_features, plain = (
        millions(Decoder(PUBLISHED, 4, norm, "bilinear", None))
        for norm in (partial(FeatureBatchNorm, features=1280, initial_scale="one"),
                     partial(ConditionalBatchNorm, conditions=1)))
    assert with_features - plain == pytest.approx(15.1, abs=0.05)


@pytest.mark.parametrize("fuse", ["tanh", "clamp"])
def test_condition_none_is_the_healthy_one(fuse):
    torch.manual_seed(0)
    generator = build_generator([4, 8], 1, fuse).eval()
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    zeros, ones = (torch.full((2,), condition) for condition in (0, 1))
    assert torch.equal(generator(images), generator(images, zeros))
    assert not torch.equal(generator(images), generator(images, ones))


def test_projection_adds_the_embedding_times_the_features():
    torch.manual_seed(0)
    discriminator = ProjectionDiscriminator([4, 8], 2, False, "differentiable").eval()
    images = torch.rand(2, 1, 16, 16)
    h = torch.relu(discriminator.blocks(images)).sum(dim=(2, 3))
    expected = discriminator(images, None) + (discriminator.embedding.weight[1] * h).sum(1)
    assert torch.allclose(discriminator(images, torch.tensor([1, 1])), expected, atol=1e-5)


def test_ordinal_projection_sums_the_vectors_passed():
    torch.manual_seed(0)
    discriminator = ProjectionDiscriminator([4, 8], 4, False, "differentiable", ordinal=True)
    vectors = discriminator.embedding.weight
    expected = [torch.zeros(8), vectors[1], vectors[1] + vectors[2], vectors[1] + vectors[2] + vectors[3]]
    torch.testing.assert_close(discriminator.embed(torch.arange(4)), torch.stack(expected))


@pytest.mark.parametrize("sigma", ["differentiable", "detached"])
def test_discriminator_weights_have_spectral_norm_one(sigma):
    torch.manual_seed(0)
    discriminator = ProjectionDiscriminator([4, 8], 2, True, sigma).train()
    for _ in range(50):  # one power iteration each
        discriminator(torch.rand(2, 1, 16, 16), None)
    weight = discriminator.eval().blocks[1].conv1.weight.detach().flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, abs=0.02)


def test_whether_sigma_is_a_constant_to_the_gradient():
    """Of the sum over W / sigma at W = diag(3, 1), sigma = 3: 1/3 each if sigma is constant; else, as d sigma = d W_00,
    W_00 has 1/3 - (3 + 1) / 9."""
    for sigma, expected in (("detached", 1 / 3), ("differentiable", 1 / 3 - 4 / 9)):
        layer = torch.nn.Linear(2, 2, bias=False)
        layer.weight.data = torch.diag(torch.tensor([3.0, 1.0]))
        spectral_norm(layer, sigma)
        for _ in range(50):
            layer(torch.ones(1, 2))
        (gradient,) = torch.autograd.grad(layer(torch.ones(1, 2)).sum(), layer.parametrizations.weight.original)
        torch.testing.assert_close(gradient, torch.tensor([[expected, 1 / 3], [1 / 3, 1 / 3]]), rtol=0, atol=1e-5)


def test_a_detached_sigma_is_estimated_further_in_eval_mode():
    torch.manual_seed(0)
    for sigma, moves in (("detached", True), ("differentiable", False)):
        layer = spectral_norm(torch.nn.Linear(8, 8, bias=False), sigma).eval()
        before = layer(torch.ones(1, 8)).detach()
        assert torch.equal(before, layer(torch.ones(1, 8))) != moves

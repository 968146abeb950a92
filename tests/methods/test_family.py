"""What Singla* and COIN-Aligned answer beyond the contract: the other direction, and the range of the maps."""

import pytest
import torch

from flipside.artifacts.explanations import ABNORMAL
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.coin_aligned import CoinAligned, CoinAlignedParams
from flipside.methods.singla import Singla, SinglaParams

ROWS = torch.arange(4)


def ask(method, images) -> ExplanationBatch:
    return method(images, ROWS, torch.ones_like(images[:, 0], dtype=torch.uint8))


def test_singla_goes_both_ways(prepared_needs, context, planted):
    needs = "models/generators/singla"
    prepared_needs(needs)
    images, _ = planted
    method = Singla(SinglaParams(needs=needs), context)
    batch = ask(method, images)
    first, last = (method.generator(images, torch.full((4,), condition)).clamp(-1, 1) for condition in (0, 1))
    assert torch.equal(batch.counterfactual, first) and torch.equal(batch.extras[ABNORMAL], last)
    torch.testing.assert_close(batch.attribution, (images - first).abs().mean(dim=1) / 2)
    assert not batch.extras[ABNORMAL].requires_grad
    assert not torch.equal(batch.extras[ABNORMAL], batch.counterfactual)


@pytest.fixture
def aligned(prepared_needs, context):
    needs = "models/generators/coin_aligned"
    prepared_needs(needs)
    return lambda compare: CoinAligned(CoinAlignedParams(needs=needs, compare=compare), context)


def test_aligned_maps_compare_images_of_the_same_range(aligned, planted):
    images, _ = planted
    plain, after_tanh = (ask(aligned(compare), images) for compare in ("input_range", "aligned"))
    torch.testing.assert_close(plain.attribution, (images - plain.counterfactual).abs()[:, 0] / 2)
    assert torch.equal(plain.counterfactual, after_tanh.counterfactual)  # like the scan, whatever is compared
    inside = plain.counterfactual.abs() < 0.99  # beyond, the scan's range cuts off
    assert inside.float().mean() > 0.5
    expected = (torch.tanh(images) - torch.tanh(plain.counterfactual)).abs() / 2
    torch.testing.assert_close(after_tanh.attribution[inside[:, 0]], expected[inside])


@pytest.mark.parametrize("compare", ["input_range", "aligned"])
def test_an_image_that_is_left_alone_has_an_empty_map(aligned, planted, compare):
    images, _ = planted
    method = aligned(compare)
    torch.nn.init.zeros_(method.generator.decoder.head.weight)
    batch = ask(method, images)
    assert batch.attribution.eq(0).all()
    torch.testing.assert_close(batch.counterfactual, images)

"""Blobs: opacity and compositing against slow references, what sums to one, jitter, layouts put together."""

import math
from dataclasses import replace

import pytest
import torch

from flipside.core.runtime import generator_for
from flipside.generators.codes.blobs import (
    Layout,
    jittered,
    opacity_logits,
    pyramid,
    semi_variances,
    splat,
    visible_shares,
)


def layout(count=2, blobs=4, feat=3, style=2, seed=0):
    generator = generator_for(seed)

    def draw(*shape):
        return torch.randn(count, *shape, generator=generator)

    return Layout(torch.sigmoid(draw(blobs, 2)), draw(blobs + 1), draw(blobs, 4), draw(blobs + 1, feat),
                  draw(blobs + 1, style), draw(5))


def test_opacity_is_that_of_an_ellipse():
    chosen, side = layout(), 8
    found = opacity_logits(chosen, side)
    for n in range(2):
        for k in range(4):
            a, b = (1 / (1 + math.exp(-float(chosen.shape[n, k, i]))) for i in (0, 1))
            length = math.hypot(*chosen.shape[n, k, 2:].tolist())
            u = torch.tensor([float(chosen.shape[n, k, 2]), float(chosen.shape[n, k, 3])]) / length
            first, second = 0.02 * math.sqrt(a / b) + 1e-5, 0.02 * math.sqrt(b / a) + 1e-5
            covariance = first * torch.outer(u, u) + second * (torch.eye(2) - torch.outer(u, u))
            for row in (0, 5):
                for column in (1, 7):
                    delta = torch.tensor([column / side, row / side]) - chosen.xy[n, k]
                    expected = chosen.size[n, k + 1] - delta @ torch.linalg.solve(covariance, delta)
                    assert float(found[n, k, row, column]) == pytest.approx(float(expected), rel=1e-3, abs=1e-3)


def test_the_area_does_not_hang_on_the_shape():
    along, across, axis = semi_variances(torch.randn(50, 4, generator=generator_for(1)))
    torch.testing.assert_close(along * across, torch.full((50,), 0.02**2), rtol=5e-3, atol=0)
    torch.testing.assert_close(axis.norm(dim=1), torch.ones(50))


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_shares_sum_to_one_and_the_last_blob_is_in_front(scale):
    logits = torch.randn(2, 5, 6, 6, generator=generator_for(2)) * scale
    shares = visible_shares(logits)
    assert shares.shape == (2, 6, 6, 6) and shares.min() >= 0
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, 6, 6))
    alpha = torch.cat([torch.ones(2, 1, 6, 6), torch.sigmoid(logits)], dim=1).double()
    for k in range(6):
        expected = alpha[:, k] * (1 - alpha[:, k + 1:]).prod(dim=1)
        torch.testing.assert_close(shares[:, k].double(), expected, atol=1e-5, rtol=1e-4)


def test_a_covered_blob_still_has_a_gradient():
    logits = torch.tensor([[[[3.0]], [[60.0]]]], requires_grad=True)
    visible_shares(logits).square().sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_smaller_levels_sum_to_one_and_splat_what_they_show():
    chosen = layout()
    levels = pyramid(visible_shares(opacity_logits(chosen, 16)), 4)
    assert list(levels) == [16, 8, 4]
    for side, shares in levels.items():
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, side, side))
        expected = torch.einsum("bkhw,bkc->bchw", shares, chosen.feat)
        torch.testing.assert_close(splat(shares, chosen.feat), expected)
    halved = torch.nn.functional.interpolate(levels[16], scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(levels[8], halved)


def test_jitter_stays_within_its_bounds_and_leaves_the_looks():
    before = layout(blobs=200)
    uniform = torch.rand(2, 200, 4, generator=generator_for(3)) * 2 - 1
    after = jittered(before, uniform)
    assert 0.03 < (after.xy - before.xy).abs().max() <= 0.04 + 1e-6
    assert 0.4 < (after.size - before.size)[:, 1:].abs().max() <= 0.5 + 1e-6
    assert torch.equal(after.size[:, 0], before.size[:, 0])
    angles = [torch.atan2(one.shape[..., 3], one.shape[..., 2]) for one in (after, before)]
    turned = torch.remainder(angles[0] - angles[1] + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(turned, 0.1 * uniform[..., 3], atol=1e-4, rtol=1e-3)
    assert after.feat is before.feat and after.style is before.style


def test_blobs_are_put_back_with_their_own_rows():
    own, other = layout(seed=4), layout(seed=5)
    chosen = torch.zeros(2, 5, dtype=torch.bool)
    chosen[0, 3] = True  # the third blob, as the background is number 0
    mixed = own.where(chosen, other)
    assert torch.equal(mixed.xy[0, 2], own.xy[0, 2]) and torch.equal(mixed.feat[0, 3], own.feat[0, 3])
    assert torch.equal(mixed.size[0, 3], own.size[0, 3]) and torch.equal(mixed.style[0, 2], other.style[0, 2])
    assert torch.equal(mixed.xy[0, [0, 1, 3]], other.xy[0, [0, 1, 3]])
    assert torch.equal(mixed.noise, own.noise)
    assert all(torch.equal(value[1], getattr(other, name)[1]) for name, value in mixed.groups().items()
               if name != "noise")


@pytest.mark.parametrize("area", [0.02, 0.005, 0.0025])
def test_the_area_scales_a_blobs_footprint(area):
    layout = Layout(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[0.0, 1.5]]), torch.tensor([[[0.7, -0.7, 0.6, 0.8]]]),
                    torch.zeros(1, 2, 3), torch.zeros(1, 2, 2), torch.zeros(1, 0), area)
    footprint = (opacity_logits(layout, 256) >= 0).float().mean()
    assert float(footprint) == pytest.approx(math.pi * 1.5 * area, rel=0.02)  # semi-axes: root of size * variance


def test_all_of_a_layout_but_its_area_is_of_single_images():
    layout = Layout(*(torch.randn(3, 2, 2) for _ in range(6)), area=0.003)
    assert layout.rows(torch.tensor([1])).area == layout.map(torch.clone).area == 0.003
    assert "area" not in layout.groups()


def test_smaller_blobs_are_jittered_by_less():
    large = Layout(torch.zeros(1, 1, 2), torch.zeros(1, 2), torch.ones(1, 1, 4), torch.zeros(1, 2, 3),
                   torch.zeros(1, 2, 2), torch.zeros(1, 0))
    shifts = [jittered(replace(large, area=area), torch.ones(1, 1, 4)).xy for area in (0.02, 0.005)]
    torch.testing.assert_close(shifts[0], torch.full((1, 1, 2), 0.04))
    torch.testing.assert_close(shifts[1], torch.full((1, 1, 2), 0.02))

"""Each attribution method against a slow reference or a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flipside.core.paths import CLASSIFIER
from flipside.methods.base.maps import MapParams
from flipside.methods.base.method import Context
from flipside.methods.cam import CAM
from flipside.methods.centre import Centre, CentreParams
from flipside.methods.gradient import Gradient
from flipside.methods.intensity import Intensity
from flipside.methods.rise import Rise, RiseParams
from tests.methods.slow import interpolated

ROWS = torch.arange(4)


def test_cam_is_the_weighted_sum_of_the_features(context, classifier, planted):
    images = planted[0] - 0.4  # dark enough for the channel that speaks against
    features = classifier.features(images)
    expected = 200 * features[:, 0] - 4 * features[:, 1]
    maps = CAM(MapParams(needs=CLASSIFIER), context).maps(images, ROWS)
    torch.testing.assert_close(maps, interpolated(expected, 32), atol=1e-5, rtol=1e-4)


def test_cam_explains_the_whole_logit(context, classifier, planted):
    images, _ = planted
    maps = CAM(MapParams(needs=CLASSIFIER), context).maps(images, ROWS)
    # Bilinear upsampling by a whole factor keeps the sum except at the border, where these images have little.
    torch.testing.assert_close(maps.mean(dim=(1, 2)) + classifier.bias, classifier(images), atol=0.05, rtol=0.02)


def test_gradient_is_the_slope_of_the_logit(context, classifier, planted):
    images, _ = planted
    maps = Gradient(MapParams(needs=CLASSIFIER), context).maps(images, ROWS)
    peak = int(maps[0].argmax())
    for place in (peak, peak + 5 * 32 + 3):
        row, column = divmod(place % 1024, 32)
        step = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
        step[0, 0, row, column] = 1e-5
        image = images[:1].double()
        slope = (classifier.double()(image + step) - classifier(image - step)) / 2e-5
        classifier.float()
        assert float(maps[0, row, column]) == pytest.approx(abs(float(slope)), abs=1e-5)


def test_intensity_is_the_image(context):
    images = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    maps = Intensity(MapParams(needs=CLASSIFIER), context).maps(images, ROWS[:1])
    torch.testing.assert_close(maps.flatten(), torch.linspace(0, 1, 16))


def test_centre_falls_off_as_a_gaussian(context):
    maps = Centre(CentreParams(needs=CLASSIFIER, sigma=0.25), context).maps(torch.zeros(2, 1, 9, 9), ROWS)
    assert maps[0, 4, 4] == 1
    assert float(maps[1, 4, 0]) == pytest.approx(np.exp(-((4 / 9) ** 2) / (2 * 0.25**2)), rel=1e-5)
    torch.testing.assert_close(maps[0], maps[0].flip(0))
    torch.testing.assert_close(maps[0], maps[0].T)


class LinearProbability(torch.nn.Module):
    """The probability itself is linear in the pixels, sum_k share_k x_k: RISE's expectation has a closed form."""

    def __init__(self, shares):
        super().__init__()
        self.shares = shares

    def forward(self, images):
        return torch.logit((images[:, 0] * self.shares).sum(dim=(1, 2)).clamp(1e-6, 1 - 1e-6))


def rise_params(**changes):
    defaults = {"needs": CLASSIFIER, "masks": 500, "grid": 2, "keep": 0.3, "normalisation": "expectation",
                "batch_size": 128, "baseline": "mid_grey"}
    return RiseParams(**(defaults | changes))


@pytest.mark.parametrize("normalisation", ["expectation", "coverage"])
def test_rise_approaches_its_expectation(normalisation, runtime):
    size, grid, keep = 6, 2, 0.3
    shares = torch.zeros(size, size)
    shares[1, 1], shares[4, 3] = 0.6, 0.3
    image = torch.full((1, 1, size, size), 1.0)
    image[0, 0, 4, 3] = 0.5

    # A mask is sum_i cell_i T_i(place + shift), T_i being the tents of the bilinear interpolation. Cells are drawn on
    # their own, so E[m(a) m(b)] = p^2 + p (1 - p) K(a,b) with K the mean over shifts of sum_i T_i(a) T_i(b), and
    # E[S(b)] = sum_a share_a x_a E[m(a) m(b)] / p.
    cell = size // grid
    places = np.arange((grid + 1) * cell)
    middles = (np.arange(grid) + 0.5) * (len(places) / grid) - 0.5
    tents = np.stack([np.interp(places, middles, row) for row in np.eye(grid)])  # (g, H+cell)
    overlap = np.zeros((size, size, size, size))  # a's row, b's row, a's column, b's column
    for down in range(cell):
        for right in range(cell):
            rows, columns = tents[:, down : down + size], tents[:, right : right + size]
            overlap += np.einsum("ab,cd->abcd", rows.T @ rows, columns.T @ columns) / cell**2
    amounts = (shares * image[0, 0]).numpy()
    expected = np.einsum("ac,abcd->bd", amounts, keep + (1 - keep) * overlap)

    params = rise_params(masks=40_000, grid=grid, keep=keep, batch_size=4_000, normalisation=normalisation)
    maps = Rise(params, Context(LinearProbability(shares), runtime, 5)).maps(image, ROWS[:1])
    np.testing.assert_allclose(maps[0].numpy(), expected, atol=0.02)


@pytest.mark.parametrize(("baseline", "value"), [("mid_grey", 0.0), ("air", -1.0)])
def test_rise_against_one_mask_at_a_time(baseline, value, context, classifier, planted):
    images, _ = planted
    method = Rise(rise_params(masks=50, grid=5, batch_size=16, baseline=baseline), context)
    masks = method.masks(slice(0, 50), 32, 32)
    expected = torch.zeros(4, 32, 32)
    for mask in masks:
        for index, image in enumerate(images):
            expected[index] += torch.sigmoid(classifier((image * mask + value * (1 - mask))[None])) * mask
    torch.testing.assert_close(method.maps(images, ROWS), expected / (50 * 0.3), atol=1e-5, rtol=1e-4)
    method = Rise(rise_params(masks=50, grid=5, batch_size=16, baseline=baseline, normalisation="coverage"), context)
    shown = torch.zeros(32, 32)
    for mask in masks:
        shown += mask
    torch.testing.assert_close(method.maps(images, ROWS), expected / shown, atol=1e-5, rtol=1e-4)


class Indifferent(torch.nn.Module):
    """Says the same of every image."""

    def forward(self, images):
        return torch.ones(len(images))


def test_rise_by_coverage_draws_nothing_where_the_classifier_sees_nothing(runtime, planted):
    found = {}
    for normalisation in ("expectation", "coverage"):
        method = Rise(rise_params(masks=50, grid=5, normalisation=normalisation), Context(Indifferent(), runtime, 0))
        found[normalisation] = method.maps(planted[0], ROWS)
    torch.testing.assert_close(found["coverage"], torch.full((4, 32, 32), float(torch.sigmoid(torch.tensor(1.0)))))
    assert found["expectation"].std() > 0.05  # nothing but the chance of the masks


def test_rise_by_coverage_survives_pixels_that_are_never_shown(context, planted):
    method = Rise(rise_params(masks=2, grid=8, keep=0.01, normalisation="coverage"), context)
    assert float(method.masks(slice(0, 2), 32, 32).sum(dim=0).min()) == 0
    assert torch.isfinite(method.maps(planted[0], ROWS)).all()


def test_rise_masks_fit_any_size_and_differ(context):
    method = Rise(rise_params(masks=300, grid=8, keep=0.1), context)
    masks = method.masks(slice(0, 300), 30, 21)  # neither is a multiple of the grid
    assert masks.shape == (300, 30, 21)
    assert 0 <= masks.min() and masks.max() <= 1
    assert float(masks.mean()) == pytest.approx(0.1, abs=0.02)
    assert len(torch.unique(masks.flatten(1), dim=0)) > 290
    torch.testing.assert_close(method.masks(slice(40, 60), 30, 21), masks[40:60])

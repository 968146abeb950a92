"""Scaling, counterfactual differences, masked images and the search for methods by name."""

from __future__ import annotations

import pydantic
import pytest
import torch

from flipside.core.params import ParamsError
from flipside.methods.base.method import (
    AttributionParams,
    Context,
    ExplanationBatch,
    load_method,
    masked_probabilities,
    min_max_scale,
    upsample,
)


def test_each_map_is_scaled_by_its_own_range():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-4.0, -2.0], [0.0, -3.0]]])
    expected = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.5], [1.0, 0.25]]])
    torch.testing.assert_close(ExplanationBatch.from_maps(maps).attribution, expected)


def test_a_constant_map_says_nothing():
    assert torch.equal(min_max_scale(torch.full((2, 3, 3), 0.7)), torch.zeros(2, 3, 3))


def test_nan_is_not_hidden_by_the_scaling():
    maps = torch.ones(1, 2, 2)
    maps[0, 0, 0] = float("nan")
    assert min_max_scale(maps).isnan().any()


def test_counterfactual_difference_spans_one_from_black_to_white():
    images = torch.tensor([-1.0, 0.0, 0.5]).view(3, 1, 1, 1)
    counterfactual = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1)
    batch = ExplanationBatch.from_counterfactual(images, counterfactual)
    torch.testing.assert_close(batch.attribution.flatten(), torch.tensor([1.0, 0.0, 0.25]))
    assert torch.equal(batch.counterfactual, counterfactual)


def test_upsampling_keeps_the_place():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1.0
    large = upsample(maps, torch.zeros(1, 1, 16, 16))[0]
    assert large.shape == (16, 16)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centre = (large * rows).sum() / large.sum(), (large * columns).sum() / large.sum()
    assert centre == (pytest.approx(5.5), pytest.approx(9.5))  # the middle of cell (1,2)


@pytest.mark.parametrize("baseline", [0.0, -1.0])
def test_masks_keep_pixels_or_turn_them_into_the_baseline(baseline, runtime):
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))

    image = torch.linspace(-1, 1, 9).view(1, 3, 3)
    masks = torch.stack([torch.ones(3, 3), torch.zeros(3, 3), torch.full((3, 3), 0.5)])
    kept = image.clone()
    answers = masked_probabilities(Context(Mean(), runtime, 0), image, masks, baseline)
    expected = torch.sigmoid(torch.tensor([0.0, baseline, baseline / 2]))
    torch.testing.assert_close(answers, expected)
    assert torch.equal(image, kept)


def test_unknown_method_is_named():
    with pytest.raises(ParamsError, match="flipside/methods/crystal_ball.py not found"):
        load_method("crystal_ball")


def test_a_file_of_the_room_that_is_no_method_is_refused():
    with pytest.raises(ParamsError, match="is no method"):
        load_method("judge_counterfactuals")


def test_attribution_methods_read_the_explained_classifier_only():
    with pytest.raises(pydantic.ValidationError):
        AttributionParams(needs="models/classifiers/judge")

"""What flip_mask answers: the student's probability, or the mask network's own, and what fills it."""

import pydantic
import pytest
import torch

from flipside.methods.flip_mask import FlipMask, FlipMaskParams
from flipside.segmenters.networks import lesion_probability


@pytest.fixture(params=["models/segmenters/flip_mask", "models/generators/flip_mask"])
def method(request, prepared_needs, context):
    prepared_needs(request.param)
    return FlipMask(FlipMaskParams(needs=request.param), context)


def ask(method, images):
    return method(images, torch.arange(len(images)), torch.ones_like(images[:, 0], dtype=torch.uint8))


def test_the_map_is_a_mask_at_one_half_and_its_filling_the_counterfactual(method, planted):
    images, discs = planted
    batch = ask(method, images)
    found = batch.attribution >= 0.5
    assert (found & discs).sum() / (found | discs).sum() > 0.5
    content = method.teacher.parts(images)[1]
    filled = images + batch.attribution[:, None] * (content - images)
    torch.testing.assert_close(batch.counterfactual, filled.clamp(-1, 1))
    classifier = method.context.classifier
    assert (classifier(images) > 0).all() and (classifier(batch.counterfactual) < classifier(images)).all()


def test_left_and_right_are_treated_alike(method, planted):
    images, _ = planted
    both = ask(method, images).attribution, ask(method, images.flip(3)).attribution.flip(2)
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)


def test_the_student_is_asked_where_there_is_one(method, planted, runtime):
    images, _ = planted
    own = (method.teacher.parts(images)[0] + method.teacher.parts(images.flip(3))[0].flip(3)) / 2
    wanted = own if method.student is None else lesion_probability(method.student, images, runtime)
    torch.testing.assert_close(ask(method, images).attribution, wanted[:, 0])


def test_another_folder_is_refused():
    with pytest.raises(pydantic.ValidationError):
        FlipMaskParams(needs="models/generators/coin")

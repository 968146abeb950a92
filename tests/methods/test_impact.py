"""Mask optimisation: its terms in closed form, its grid, where holes may be, and what the shape terms are for."""

import pytest
import torch
import torch.nn.functional as F

from flipside.artifacts.explanations import STEPS
from flipside.core.params import load_section
from flipside.methods.impact import Impact, ImpactParams, dice_overlap, map_variation
from tests.methods.conftest import PARAMS

NEEDS = "models/generators/impact"


@pytest.fixture
def build(prepared_needs, context):
    prepared_needs(NEEDS)
    published = load_section("methods.impact", ImpactParams, PARAMS)
    return lambda **changes: Impact(published.model_copy(update=changes), context)


def ask(method, images, organ=None):
    organ = torch.ones_like(images[:, 0], dtype=torch.uint8) if organ is None else organ
    return method(images, torch.arange(len(images)), organ)


def test_total_variation_of_a_square_is_its_outline():
    maps = torch.zeros(2, 1, 8, 10)
    maps[0, 0, 2:5, 3:7] = 0.5
    maps[1] = 1.0  # the image's own border counts: to mark all of it is not for nothing
    assert map_variation(maps).tolist() == pytest.approx([0.5 * 14 / 80**0.5, 36 / 80**0.5], rel=0.03)


def test_dice_in_closed_form():
    maps, organ = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    organ[:2, :, :2] = True  # 8 px
    maps[0, :, :, :2] = 1.0  # 8 px, 4 of them in the organ
    maps[1, :, :2] = 1.0
    assert dice_overlap(maps, organ).tolist() == pytest.approx([0.5, 1.0, 0.0])


def test_loss_is_phi_psi_and_the_shape_terms(build, context, planted):
    images, _ = planted
    method = build(lambda_score=2.0, lambda_total_variation=3.0, lambda_area=5.0, relaxation="soft", least_logit=-100.0)
    saliency = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    organ = torch.ones_like(images, dtype=torch.bool)
    own = context.classifier(images)
    composite = method.generator.inpaint(images, saliency)
    p_healthy = 1 - torch.sigmoid(context.classifier(composite))
    log_odds = torch.logit(p_healthy), torch.logit(1 - torch.sigmoid(own))  # of the composite, of the image
    phi, psi = -torch.log(p_healthy), log_odds[1] - log_odds[0]  # Major et al. with c = healthy, psi's sign as printed
    shape = 3.0 * map_variation(saliency) + 5.0 * dice_overlap(saliency, organ)
    expected = 2.0 * (phi + psi) + shape
    torch.testing.assert_close(method.loss(saliency, images, organ, own), expected, atol=1e-3, rtol=1e-3)


def test_what_is_healthy_enough_pays_no_more(build, context, planted):
    images, _ = planted
    saliency, organ = torch.ones_like(images), torch.ones_like(images, dtype=torch.bool)
    method = build(lambda_total_variation=0.0, lambda_area=0.0, least_logit=-3.0)
    slopes = []
    for logit in (-20.0, -3.0, 5.0):
        answer = torch.full((4,), logit, requires_grad=True)
        method.classify = lambda given, answer=answer: answer
        slopes.append(torch.autograd.grad(method.loss(saliency, images, organ, torch.zeros(4)).sum(), answer)[0][0])
    assert slopes[0] < 1e-6 and 0.4 < slopes[1] < 0.8 < 1.9 < slopes[2] <= 2


def test_a_sure_classifier_still_gives_a_gradient(build, context, planted):
    images, lesions = planted
    method = build(lambda_total_variation=0.0, lambda_area=0.0)
    saliency = torch.full_like(images, 0.5, requires_grad=True)
    context.classifier.bias = 60.0  # its probability is 1 to the last digit
    loss = method.loss(saliency, images, torch.ones_like(images, dtype=torch.bool), context.classifier(images))
    (gradient,) = torch.autograd.grad(loss.sum(), saliency)
    inside, outside = gradient[lesions[:, None]], gradient[~lesions[:, None]]
    assert inside.mean() < 0 and inside.abs().mean() > 3 * outside.abs().mean()  # a hole in the lesion lowers the loss


def test_grid_is_a_chessboard_of_cells_where_the_organ_is(build):
    method = build(cell_px=4, initial=(0.6, 0.4), inside_organ=True)
    organ = torch.zeros(2, 1, 10, 13, dtype=torch.bool)
    organ[0, 0, 5, 12] = True
    organ[1] = True
    cells, allowed = method.initial_grid(organ)
    assert cells.shape == allowed.shape == (2, 1, 3, 4)
    assert cells[0, 0, 0].tolist() == pytest.approx([0.6, 0.4, 0.6, 0.4])
    assert cells[0, 0, 1].tolist() == pytest.approx([0.4, 0.6, 0.4, 0.6])
    assert allowed[0].nonzero().tolist() == [[0, 1, 3]] and allowed[1].eq(1).all()
    drawn = method.draw(torch.ones_like(cells), allowed, organ)
    assert drawn.shape == organ.shape and drawn[1].eq(1).all()
    assert drawn[0, 0, 4:8, 12].max() > 0.5 and drawn[0, 0, :, :10].eq(0).all()
    assert build(cell_px=4, inside_organ=False).initial_grid(organ)[1].eq(1).all()


@pytest.mark.parametrize("relaxation", ["soft", "straight_through"])
def test_holes_cover_the_lesion_and_healthy_tissue_fills_them(build, context, planted, relaxation):
    images, lesions = planted
    batch = ask(build(relaxation=relaxation), images)
    marked = batch.attribution > 0
    assert marked[lesions].float().mean() > 3 * marked[~lesions].float().mean()
    assert (context.classifier(images) > 0).all() and (context.classifier(batch.counterfactual) < 0).all()
    known = ~marked[:, None]
    assert torch.equal(batch.counterfactual[known], images[known])
    assert batch.attribution[marked].min() > 0.5  # theta
    assert batch.extras[STEPS].tolist() == [load_section("methods.impact", ImpactParams, PARAMS).steps] * 4


def test_what_is_called_healthy_by_far_is_left_as_it_is(build, context, planted):
    images, _ = planted
    mixed = torch.cat([images, torch.full_like(images[:2], -0.5)])
    assert (context.classifier(mixed)[4:] <= -2).all()
    batch, alone = ask(build(least_logit=-1.9), mixed), ask(build(least_logit=-1.9), images)
    assert torch.equal(batch.counterfactual[4:], mixed[4:]) and batch.attribution[4:].eq(0).all()
    assert batch.extras[STEPS][4:].tolist() == [0, 0]
    assert torch.allclose(batch.attribution[:4], alone.attribution, atol=1e-5)


def test_holes_stay_in_the_organ_and_an_image_without_one_may_have_them_anywhere(build, planted):
    images, lesions = planted
    organ = torch.zeros_like(lesions)
    organ[0, :8] = True
    batch = ask(build(inside_organ=True, lambda_area=0.0, cell_px=4), images, organ.to(torch.uint8))
    assert batch.attribution[0, 10:].eq(0).all()
    assert batch.attribution[1:].gt(0).any(dim=2).any(dim=1).all()


def test_without_shape_terms_more_is_marked_and_scattered(build, planted):
    images, _ = planted
    shaped = ask(build(lambda_total_variation=0.03, lambda_area=2.0), images).attribution
    free = ask(build(lambda_total_variation=0.0, lambda_area=0.0), images).attribution
    assert free.gt(0).sum() > 1.5 * shaped.gt(0).sum()
    assert map_variation(free[:, None]).mean() > map_variation(shaped[:, None]).mean()


def test_sides_that_are_no_multiple_of_a_cell(build, planted):
    images, _ = planted
    odd = F.pad(images, (0, -3, 0, -5))
    batch = ask(build(steps=3), odd)
    assert batch.attribution.shape == odd[:, 0].shape and batch.counterfactual.shape == odd.shape

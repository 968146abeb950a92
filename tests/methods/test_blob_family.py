"""Inversion, OCTET and TACE: batch against solo, what stays bit for bit, which blobs are a region."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flipside.artifacts.explanations import BLOBS, ROI, STEPS
from flipside.core.params import load_section
from flipside.generators.base.loading import load_generator
from flipside.generators.codes.blobs import Layout, opacity_logits, visible_shares
from flipside.generators.codes.reconstruction import observer_of
from flipside.methods.latent.inversion import InversionParams, equation_3, invert
from flipside.methods.latent.latents import Latents
from flipside.methods.latent.regions import (
    RegionParams,
    choose_region,
    describe_blobs,
    mask_region,
    outline_blobs,
    score_changes,
)
from flipside.methods.latent.search import SearchParams, Trial, search
from flipside.methods.octet import Octet
from flipside.methods.tace import RegionStep, Scene, Tace
from tests.methods.conftest import PARAMS

NEEDS = "data/latents/blobgan"
ROWS = torch.arange(4)
INVERSION = InversionParams(steps=12, learning_rate=0.02, halve_every=6, lambda_perceptual=1.0, lambda_pixel=10.0,
                            lambda_decision=0.1, lambda_proximity=0.1, batch_size=2, noise_side=8,
                            noise_learning_rate=0.02)
SEARCH = SearchParams(needs=NEEDS, mode="both", steps=8, learning_rate=0.08, proximity=1.0, stop="margin", margin=0.05)
REGION = RegionParams(rank="displacement", seeds=1, neighbours=4, least_overlap=0.05, largest_neighbour=0.25)


@pytest.fixture
def ready(prepared_needs, runtime, classifier):
    """The toy generator with its encoder, the observer of the toy classifier."""
    prepared_needs(NEEDS)
    generator = load_generator(NEEDS, runtime)
    return generator, observer_of(classifier)


def discs(*places, sizes=None, shape=(0.0, 0.0, 1.0, 0.0)):
    """One layout of round blobs at (x, y); size 1 is a radius of 0.14."""
    count = len(places)
    return Layout(torch.tensor([places]).float(), torch.tensor([[0.0, *(sizes or [1.0] * count)]]),
                  torch.tensor([[shape] * count]), torch.zeros(1, count + 1, 3), torch.zeros(1, count + 1, 2),
                  torch.zeros(1, 0))


# Inversion.


def test_images_inverted_together_are_those_inverted_alone(ready, planted):
    generator, observer = ready
    images, _ = planted
    together, terms = invert(generator, generator.encoder, observer, images, INVERSION)
    for row in range(4):
        alone, own = invert(generator, generator.encoder, observer, images[row : row + 1], INVERSION)
        made = generator.render(alone)
        torch.testing.assert_close(generator.render(together)[row : row + 1], made, atol=3e-3, rtol=0)
        assert float(own["pixel"]) == pytest.approx(float(terms["pixel"][row]), rel=0.01)


def test_inversion_gets_closer_than_the_encoder(ready, planted):
    generator, observer = ready
    images, _ = planted
    start = generator.decode(generator.encoder(images))
    before = equation_3(generator, observer, start, start, images, observer(images))
    _, after = invert(generator, generator.encoder, observer, images, INVERSION)
    assert (after["pixel"] < before["pixel"]).all()
    assert before["proximity"].eq(0).all() and after["proximity"].gt(0).all()
    expected = (generator.render(start) - images).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(before["pixel"], expected)


def test_found_noise_brings_the_inversion_closer(ready, planted):
    generator, observer = ready
    images, _ = planted
    fixed, _ = invert(generator, generator.encoder, observer, images, INVERSION.model_copy(update={"noise_side": 0}))
    found, _ = invert(generator, generator.encoder, observer, images, INVERSION)
    assert fixed.noise.shape == (4, 0) and found.noise.shape[1] == generator.renderer.noise_numbers(8) > 0
    without = replace(found, noise=torch.zeros_like(found.noise))
    errors = [float((generator.render(layout) - images).abs().mean()) for layout in (found, fixed, without)]
    assert errors[0] < min(errors[1:])


def test_latents_of_slices_that_were_not_inverted_are_refused(ready):
    with pytest.raises(ValueError, match=r"no latents of the slice at row 7 \(1 of 2.*invert@blobgan"):
        Latents.open(NEEDS).of(torch.tensor([1, 7]), torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match="invert@elsewhere"):
        Latents.open("data/latents/elsewhere")


# The search.


def bright(target):
    """An objective that pulls the sizes up; called healthy once their mean is past `target` (B,)."""
    def objective(layout, rows):
        mean = layout.size[:, 1:].mean(dim=1)
        return Trial(-mean, target[rows] - mean, mean)

    return objective


def several(count):
    layout = discs((0.2, 0.2), (0.7, 0.7), sizes=[0.0, 0.0])
    return layout.map(lambda value: value.expand(count, *value.shape[1:]).clone())


def test_each_image_stops_by_itself_where_it_is_called_healthy():
    target = torch.tensor([-1.0, 0.1, 0.3, 9.0])
    params = SEARCH.model_copy(update={"steps": 10, "margin": 0.0})
    found = search(several(4), bright(target), params)
    assert found.steps.tolist() == [0, 2, 4, 10]
    assert found.healthy.tolist() == [True, True, True, False]
    for row in range(4):
        alone = search(several(1), bright(target[row : row + 1]), params)
        assert torch.equal(alone.layout.size[0], found.layout.size[row])


def test_what_has_stopped_is_asked_for_no_more():
    asked, objective = [], bright(torch.tensor([-1.0, 0.1, 9.0]))

    def counted(layout, rows):
        asked.append(rows.tolist())
        return objective(layout, rows)

    search(several(3), counted, SEARCH.model_copy(update={"steps": 4, "margin": 0.0}))
    assert asked == [[0, 1, 2], [1, 2], [1, 2], [2], [2]]


def test_without_a_stop_all_steps_are_made_and_the_last_counts():
    params = SEARCH.model_copy(update={"stop": "none", "steps": 10})
    found = search(several(2), bright(torch.tensor([-1.0, 0.1])), params)
    assert found.steps.tolist() == [10, 10]
    torch.testing.assert_close(found.layout.size[:, 1:], torch.full((2, 2), 0.8), atol=1e-4, rtol=0)


def test_only_free_blobs_and_groups_of_the_mode_move():
    start, free = several(1), torch.tensor([[False, True, False]])
    found = search(start, bright(torch.tensor([9.0])), SEARCH, free=free).layout
    assert found.size[0, 1] > 0.5 and found.size[0, 2] == 0
    for mode, fixed in (("style", ("xy", "size", "shape", "feat")), ("spatial", ("feat", "style"))):
        found = search(start, lambda layout, rows: Trial(
            -sum(value.sum(dim=list(range(1, value.dim()))) for value in layout.groups().values()),
            torch.ones(1), torch.zeros(1)), SEARCH.model_copy(update={"mode": mode})).layout
        assert all(torch.equal(getattr(found, name), getattr(start, name)) for name in fixed)


# Regions.


def displacement(start, after):
    return score_changes(after, start, {name: torch.ones(value.shape[-1])
                                        for name, value in describe_blobs(start).items()})


def test_discs_apart_are_no_neighbours_and_overlapping_ones_are():
    start = discs((0.2, 0.2), (0.3, 0.2), (0.8, 0.8))
    after = replace(start, style=start.style.clone())
    after.style[0, 1] = 1.0  # the look alone of the first blob
    region = choose_region(start, after, displacement(start, after), REGION)
    assert region.most_changed.tolist() == [0]
    assert region.chosen.tolist() == [[False, True, True, False]]


def test_a_blob_that_moves_into_another_becomes_its_neighbour():
    start, after = discs((0.2, 0.2), (0.8, 0.8)), discs((0.7, 0.8), (0.8, 0.8))
    region = choose_region(start, after, displacement(start, after), REGION)
    assert region.most_changed.tolist() == [0] and region.chosen.tolist() == [[False, True, True]]


def test_neither_the_background_nor_an_organ_sized_blob_is_a_neighbour():
    start = discs((0.5, 0.5), (0.5, 0.5), (0.55, 0.5), sizes=[1.0, 14.0, 1.0])
    after = replace(start, style=start.style.clone())
    after.style[0, 1], after.style[0, 0] = 1.0, 50.0
    region = choose_region(start, after, displacement(start, after), REGION)
    assert region.chosen.tolist() == [[False, True, False, True]]
    only = choose_region(start, after, displacement(start, after), REGION.model_copy(update={"neighbours": 0}))
    assert only.chosen.tolist() == [[False, True, False, False]]


def test_an_unseen_blob_is_not_the_most_changed_one():
    start = discs((0.2, 0.2), (0.8, 0.8), sizes=[-3.0, 1.0])
    after = replace(start, style=start.style.clone())
    after.style[0, 1], after.style[0, 2] = 9.0, 1.0
    assert choose_region(start, after, displacement(start, after), REGION).most_changed.tolist() == [1]


def test_an_ellipse_turned_by_half_a_turn_has_not_changed():
    start = discs((0.5, 0.5), shape=(1.0, -1.0, 0.6, 0.8))
    turned = discs((0.5, 0.5), shape=(1.0, -1.0, -0.6, -0.8))
    for name, value in describe_blobs(start).items():
        torch.testing.assert_close(describe_blobs(turned)[name], value)
    torch.testing.assert_close(opacity_logits(turned, 16), opacity_logits(start, 16))


def test_the_mask_is_exactly_zero_where_the_region_is_hardly_seen():
    shares = visible_shares(opacity_logits(discs((0.3, 0.3), (0.7, 0.7)), 32))
    chosen = torch.tensor([[False, True, False]])
    mask = mask_region(shares, shares, chosen)
    own = shares[:, 1:2]
    assert mask[own <= 0.05].eq(0).all() and mask[own >= 0.5].eq(1).all()
    assert mask[0, 0, 22, 22] == 0 and mask[0, 0, 10, 10] == 1
    both = mask_region(shares, torch.zeros_like(shares), chosen)
    assert torch.equal(both, mask)


def test_outlines_are_where_half_the_opacity_is():
    layout = discs((0.5, 0.4), (0.2, 0.2), sizes=[1.3, -2.0], shape=(1.0, -1.0, 0.6, 0.8))
    after = replace(layout, style=layout.style + 1)
    region = choose_region(layout, after, displacement(layout, after), REGION)
    (x, y, along, across, angle, chosen, most), unseen = outline_blobs(after, region)[0].tolist()
    assert (x, y, chosen, most) == pytest.approx((0.5, 0.4, 1.0, 1.0)) and unseen[2:4] == [0, 0]
    for distance, turn in ((along, angle), (across, angle + np.pi / 2)):
        edge = replace(layout, xy=layout.xy - distance * torch.tensor([np.cos(turn), np.sin(turn)]).float())
        # Moved by a semi-axis, the blob's edge lies on what was its centre: pixel (0.5, 0.4) of a grid of 10.
        assert float(opacity_logits(edge, 10)[0, 0, 4, 5]) == pytest.approx(0.0, abs=1e-2)


# The methods.


def octet(context, **changes):
    return Octet(load_section("methods.octet", Octet.Params, PARAMS).model_copy(update=changes), context)


def tace(context, **changes):
    return Tace(load_section("methods.tace", Tace.Params, PARAMS).model_copy(update=changes), context)


@pytest.mark.parametrize("step", ["restricted_cf", "literal_eq4"])
@pytest.mark.parametrize("composite", ["residual", "replace"])
def test_outside_its_region_tace_leaves_every_bit(ready, context, planted, step, composite):
    images, _ = planted
    made = tace(context, steps=6, first_steps=6, step=step, composite=composite)
    batch = made(images, ROWS, torch.ones_like(images[:, 0]))
    outside = batch.extras[ROI] == 0
    assert outside.flatten(1).any(dim=1).all() and (~outside).flatten(1).any(dim=1).all()
    assert torch.equal(batch.counterfactual[outside], images[outside])
    assert not torch.equal(batch.counterfactual, images)
    assert batch.attribution[outside[:, 0]].eq(0).all()
    blobs = batch.extras[BLOBS]
    assert blobs[..., 6].sum(dim=1).eq(1).all() and (blobs[..., 5] >= blobs[..., 6]).all()


def test_without_compositing_no_region_is_promised(ready, context, planted):
    images, _ = planted
    batch = tace(context, steps=2, first_steps=2, composite="none")(images, ROWS, torch.ones_like(images[:, 0]))
    assert ROI not in batch.extras


def test_equal_blobs_give_the_scan_itself(ready, context, planted):
    images, _ = planted
    made = tace(context)
    start = made.latents.of(ROWS, images.device)
    region = choose_region(start, start, displacement(start, start), REGION)
    shares = made.generator.shares(start)
    step = RegionStep(made, Scene(made, images, start, shares, made.generator.render(start, shares=shares)), region)
    image, mask = step.composite(start, ROWS)
    assert mask.gt(0).any() and torch.equal(image, images)


def test_a_scan_called_healthy_is_its_own_counterfactual(ready, context):
    images = torch.full((2, 1, 32, 32), -0.3)
    assert context.classifier(images).max() < -0.5
    batch = tace(context, margin=0.05)(images, ROWS[:2], torch.ones_like(images[:, 0]))
    assert torch.equal(batch.counterfactual, images)
    assert batch.extras[ROI].eq(0).all() and batch.extras[STEPS].eq(0).all()

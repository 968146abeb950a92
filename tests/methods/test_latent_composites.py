"""OCTET, TACE and StylEx show the scan with the generator's change: exact where nothing changes, flipped as scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flipside.artifacts.explanations import ROI, STEPS
from flipside.core.params import load_section
from flipside.core.runtime import generator_for
from flipside.generators.base.loading import load_generator
from flipside.methods.base.method import find_method
from flipside.methods.latent.composite import compose
from flipside.methods.latent.latents import Latents
from flipside.methods.latent.regions import Region, gate_noise, score_by_logit
from flipside.methods.tace import RegionStep, Scene
from tests.methods.conftest import PARAMS

ROWS = torch.arange(4)
LATENT = ("octet", "tace", "stylex")
SHORT = {"octet": {"steps": 6}, "tace": {"steps": 6, "first_steps": 6}, "stylex": {}}


@pytest.fixture
def method(prepared_needs, context):
    """`method(name, **changes)` -> a latent method on its toy generator."""
    def make(name, **changes):
        kind = find_method(name)
        params = load_section(f"methods.{name}", kind.Params, PARAMS)
        prepared_needs(params.needs)
        return kind(params.model_copy(update=SHORT[name] | changes), context)

    return make


def draw(*shape, key=0, scale=1.0):
    return torch.randn(*shape, generator=generator_for(7, key)) * scale


# What is shown.


@pytest.mark.parametrize("mask", [None, torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)])
def test_a_residual_is_the_scan_and_the_masked_change(mask):
    images, made, reconstruction = draw(2, 1, 4, 3, scale=0.2), draw(2, 1, 4, 3, key=1), draw(2, 1, 4, 3, key=2)
    share = 1.0 if mask is None else mask
    expected = (images + share * (made - reconstruction)).clamp(-1, 1)
    torch.testing.assert_close(compose("residual", images, made, reconstruction, mask), expected)
    assert torch.equal(compose("residual", images, made, made, mask), images)
    torch.testing.assert_close(compose("none", images, made, reconstruction, mask), made.clamp(-1, 1))
    if mask is not None:
        replaced = compose("replace", images, made, reconstruction, mask)
        torch.testing.assert_close(replaced[..., 1:], ((1 - mask) * images + mask * made).clamp(-1, 1)[..., 1:])
        assert torch.equal(replaced[..., 0], images[..., 0])


@pytest.mark.parametrize("name", LATENT)
def test_a_scan_called_healthy_stays_as_it_is_whatever_its_reconstruction(method, context, name):
    images = torch.full((2, 1, 32, 32), -0.3)
    assert context.classifier(images).max() < -0.5
    batch = method(name, margin=0.05)(images, ROWS[:2], torch.ones(2, 32, 32))
    assert torch.equal(batch.counterfactual, images)
    assert batch.attribution.eq(0).all() and batch.extras[STEPS].eq(0).all()


@pytest.mark.parametrize("name", LATENT)
def test_the_decision_on_what_is_scored_is_the_one_that_falls(method, context, planted, name):
    images, _ = planted
    batch = method(name)(images, ROWS, torch.ones(4, 32, 32))
    before, after = context.classifier(images), context.classifier(batch.counterfactual)
    moved = batch.extras[STEPS] > 0
    assert before.min() > 0 and moved.any() and (after[moved] < before[moved]).all()


def test_published_octet_shows_the_generators_own_image(method, context, planted):
    images, _ = planted
    octet = method("octet", composite="none", margin=0.05)
    batch = octet(images, ROWS, torch.ones(4, 32, 32))
    assert ROI not in batch.extras and octet.seconds_before == 0.5
    start = octet.latents.of(ROWS, images.device)
    before = context.classifier(octet.generator.render(start).clamp(-1, 1))
    still = before < -np.log(0.55 / 0.45)
    assert (~still).any() and (context.classifier(batch.counterfactual)[~still] < before[~still]).all()
    assert batch.extras[STEPS][still].eq(0).all()


def test_published_stylex_shows_the_generators_own_image(method, planted):
    images, _ = planted
    stylex = method("stylex", composite="none")
    batch = stylex(images, ROWS, torch.ones(4, 32, 32))
    styles = stylex.generator.encoded(images, torch.sigmoid(stylex.classifier(images)))
    error = float((stylex.generator.render(styles).clamp(-1, 1) - images).abs().mean())
    assert float((batch.counterfactual - images).abs().mean()) > 0.5 * error > 0


@pytest.mark.parametrize("name", LATENT)
def test_all_searches_have_the_same_margin(name):
    assert load_section(f"methods.{name}", find_method(name).Params, PARAMS).margin == 0.45


# Which blob comes first.


def test_blobs_are_ranked_by_what_the_change_of_each_does_alone(prepared_needs, runtime, classifier, planted):
    images, _ = planted
    prepared_needs("data/latents/blobgan")
    generator = load_generator("data/latents/blobgan", runtime)
    start = Latents.open("data/latents/blobgan").of(ROWS, images.device)
    after = replace(start, xy=start.xy + 0.1 * draw(*start.xy.shape), style=start.style + draw(*start.style.shape))

    def ask(layout, rows, changed):
        assert len(layout.xy) == len(rows) == len(changed) <= 5 and changed.sum(dim=1).eq(1).all()
        return classifier(generator.render(layout) + images[rows])

    found = score_by_logit(after, start, ask, batch_size=5)
    for row in range(4):
        one = ROWS[row : row + 1]
        for blob in range(start.blobs):
            alone = start.map(torch.clone)
            for name in ("xy", "shape"):
                getattr(alone, name)[row, blob] = getattr(after, name)[row, blob]
            for name in ("size", "feat", "style"):
                getattr(alone, name)[row, blob + 1] = getattr(after, name)[row, blob + 1]
            changed = torch.arange(start.blobs + 1)[None] == blob + 1
            assert float(found[row, blob]) == pytest.approx(-float(ask(alone.rows(one), one, changed)), abs=1e-3)


# The noise that the inversion has found.


def test_noise_is_left_out_inside_the_region_alone():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2, :4], mask[..., 4:, 4:] = 1.0, 0.25
    noise = draw(1, 4**2 + 8**2 + 3)[:, : 4**2 + 8**2]
    coarse, fine = (part.view(side, side) for part, side in zip(
        gate_noise(noise, [4, 8, 16], mask).split([16, 64], dim=1), (4, 8), strict=True))
    before_coarse, before_fine = noise[0, :16].view(4, 4), noise[0, 16:].view(8, 8)
    assert fine[:2, :4].eq(0).all() and coarse[0, :2].eq(0).all()
    torch.testing.assert_close(fine[4:, 4:], 0.75 * before_fine[4:, 4:])
    torch.testing.assert_close(coarse[2:, 2:], 0.75 * before_coarse[2:, 2:])
    outside = mask[0, 0] == 0
    assert torch.equal(fine[outside], before_fine[outside]) and torch.equal(coarse[1], before_coarse[1])
    assert gate_noise(noise[:, :0], [4, 8], mask).shape == (1, 0)


@pytest.mark.parametrize("noise", ["gated", "kept"])
def test_the_gate_opens_where_blobs_change_and_changes_nothing_outside(method, planted, noise):
    images, _ = planted
    tace = method("tace", noise=noise)
    start = tace.latents.of(ROWS, images.device)
    chosen = torch.zeros(4, start.blobs + 1, dtype=torch.bool)
    chosen[:, 1] = True
    shares = tace.generator.shares(start)
    scene = Scene(tace, images, start, shares, tace.generator.render(start, shares=shares))
    step = RegionStep(tace, scene, Region(torch.zeros(4).long(), chosen))
    assert start.noise.shape[1] > 0 and torch.equal(step.composite(start, ROWS)[0], images)
    hardly = replace(start, style=start.style + 1e-6 * chosen[..., None])
    image, mask = step.composite(hardly, ROWS)
    outside = (mask == 0).expand_as(images)
    assert torch.equal(image[outside], images[outside])
    change = (image - images).abs().max()
    assert change > 1e-3 if noise == "gated" else change < 1e-3

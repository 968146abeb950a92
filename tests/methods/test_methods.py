"""Every method under `methods` in params.yaml keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from flipside.artifacts.explanations import STEPS
from flipside.core.params import load_section, read_params
from flipside.core.paths import CLASSIFIER
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.maps import MapParams
from flipside.methods.base.method import Context, find_method
from flipside.methods.latent.search import SearchParams
from flipside.methods.random import RandomMap
from flipside.methods.stylex import Stylex

PARAMS = Path(__file__).parents[2] / "params.yaml"
METHODS = sorted(read_params(PARAMS)["methods"])
# Maps that are not the change: an optimised mask, -F(G(x)), a probability.
MAPS_OF_THEIR_OWN = {"impact", "cx_gan", "flip_mask"}
PROBABILITIES = {"supervised"}  # not scaled to each map's own range
CONTROLS = set(read_params(PARAMS)["report"]["controls"])  # the rows that a method is compared with


@pytest.fixture(params=METHODS)
def name(request) -> str:
    return request.param


@pytest.fixture
def build(name, prepared_needs):
    """A fresh instance of the method for a context."""
    method_class = find_method(name)
    params = load_section(f"methods.{name}", method_class.Params, PARAMS)
    if isinstance(params, SearchParams):  # of octet and tace: few steps show what is asked for here
        params = params.model_copy(update={key: 12 for key in ("steps", "first_steps") if hasattr(params, key)})
    prepared_needs(params.needs)
    return lambda context: method_class(params, context)


def ask(method, images: Tensor, first_row: int = 0) -> ExplanationBatch:
    """The method's answer for images (B,1,H,W) at consecutive rows, all pixels organ."""
    rows = torch.arange(first_row, first_row + len(images))
    return method(images, rows, torch.ones_like(images[:, 0], dtype=torch.uint8))


def test_shapes_ranges_and_no_graph(name, build, context, planted):
    images, _ = planted
    batch = ask(build(context), images)
    assert batch.attribution.shape == images[:, 0].shape
    assert not batch.attribution.requires_grad
    assert 0 <= batch.attribution.min() and batch.attribution.max() <= 1
    assert batch.attribution.flatten(1).std(dim=1).min() > 0
    if batch.counterfactual is None:
        lowest, highest = (reduce(batch.attribution, dim=(1, 2)) for reduce in (torch.amin, torch.amax))
        assert name in PROBABILITIES or (lowest.eq(0).all() and highest.eq(1).all())
    else:
        assert batch.counterfactual.shape == images.shape
        assert not batch.counterfactual.requires_grad
        assert -1 <= batch.counterfactual.min() and batch.counterfactual.max() <= 1
        if name not in MAPS_OF_THEIR_OWN:
            torch.testing.assert_close(batch.attribution, (images - batch.counterfactual).abs()[:, 0] / 2)
    assert set(batch.extras) <= set(find_method(name).extras)
    if STEPS in batch.extras:
        assert batch.extras[STEPS].shape == (len(images),)


def test_inputs_and_classifier_are_left_alone(build, context, planted):
    images, _ = planted
    before = images.clone(), {key: value.clone() for key, value in context.classifier.state_dict().items()}
    ask(build(context), images)
    assert torch.equal(images, before[0]) and not images.requires_grad
    for key, value in context.classifier.state_dict().items():
        assert torch.equal(value, before[1][key])
    assert not any(parameter.requires_grad for parameter in context.classifier.parameters())


def test_batch_equals_loop(build, context, planted):
    images, _ = planted
    method = build(context)
    together = ask(method, images)
    for row in range(len(images)):
        alone = ask(method, images[row : row + 1], first_row=row)
        torch.testing.assert_close(together.attribution[row], alone.attribution[0], atol=1e-4, rtol=1e-4)
        if together.counterfactual is not None:
            torch.testing.assert_close(together.counterfactual[row], alone.counterfactual[0], atol=1e-4, rtol=1e-4)
        if STEPS in together.extras:
            assert together.extras[STEPS][row] == alone.extras[STEPS][0]


def test_same_seed_same_answer(build, context, planted):
    images, _ = planted
    first = ask(build(context), images)
    torch.rand(7)  # whatever else draws random numbers in between
    second = ask(build(context), images)
    assert torch.equal(first.attribution, second.attribution)
    if first.counterfactual is not None:
        assert torch.equal(first.counterfactual, second.counterfactual)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in CONTROLS])
def test_finds_a_planted_lesion_better_than_chance(build, context, planted):
    """Twice as well; but by a fifth where a toy generator, trained for seconds, hardly draws the lesion (stylex)."""
    images, lesions = planted
    control = RandomMap(MapParams(needs=CLASSIFIER), context)
    method = build(context)
    found, chance = (binary_average_precision(ask(method, images).attribution.flatten(), lesions.long().flatten())
                     for method in (method, control))
    assert found > (1.2 if isinstance(method, Stylex) else 2) * chance


def test_seed_decides_the_random_control(context, classifier, runtime, planted):
    images, _ = planted
    params = MapParams(needs=CLASSIFIER)
    one, other = (ask(RandomMap(params, Context(classifier, runtime, seed)), images).attribution for seed in (1, 2))
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])

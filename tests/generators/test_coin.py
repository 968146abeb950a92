"""COIN's steps: the named switches, and that it learns to remove a planted blob."""

import pytest
import torch
import yaml

from flipside.generators import coin
from flipside.generators.training.inpainting import healthy_target, real_condition
from tests.generators.toys import COIN, LESION, BlobClassifier, batch_of, slices, train


def params(**changes):
    return coin.CoinParams(**{**COIN, **changes})


def test_learns_to_remove_the_blob_and_leaves_healthy_slices_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, classifier = slices(), BlobClassifier()
    generator, history = train(coin.Coin, params(steps=300))
    with torch.no_grad():
        counterfactual = generator(images[:, None])[:, 0]
    abnormal = torch.arange(0, 32, 2)
    assert (classifier(counterfactual[abnormal][:, None]) < 0).float().mean() > 0.9
    change = (images - counterfactual).abs()
    lesion = images > 0.5
    assert change[lesion].mean() > 3 * change[~lesion].mean()
    assert history[-1]["classifier"] < history[0]["classifier"]


def test_switches_change_exactly_what_they_name():
    logits = torch.tensor([-1.0, 2.0])
    assert real_condition("predicted", logits).tolist() == [0, 1]
    assert real_condition("single", logits).tolist() == [0, 0]
    own = torch.sigmoid(logits)
    assert healthy_target(params(), logits).tolist() == pytest.approx([own[0].item(), 0.0])
    assert healthy_target(params(kl_target="always_healthy"), logits).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("cycle_target", ["input", "counterfactual"])
def test_reconstruction_is_equation_4(cycle_target):
    torch.manual_seed(0)
    gan = coin.Coin(params(cycle_target=cycle_target, lambda_reconstruction=2.0), BlobClassifier(), LESION)
    gan.network.eval()
    images = torch.rand(2, 1, 16, 16)
    counterfactual = gan.network(images)
    losses = gan.generator_losses(batch_of(images), counterfactual)
    cycled = gan.network(counterfactual)
    target = images if cycle_target == "input" else counterfactual
    expected = 2 * ((images - counterfactual).abs().mean() + (target - cycled).abs().mean())
    assert losses["reconstruction"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(losses) == {"adversarial", "classifier", "reconstruction", "total_variation"}


def test_zero_weight_leaves_the_term_out():
    gan = coin.Coin(params(lambda_adversarial=0, lambda_reconstruction=0), BlobClassifier(), LESION)
    images = torch.rand(2, 1, 16, 16)
    losses = gan.generator_losses(batch_of(images), gan.network(images))
    assert set(losses) == {"classifier", "total_variation"}


def test_parameters_survive_yaml_with_scientific_notation():
    written = yaml.safe_dump({**COIN, "learning_rate": "1e-06"})
    assert coin.CoinParams(**yaml.safe_load(written)).learning_rate == 1e-6

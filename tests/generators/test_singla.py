"""Singla*: bins, targets, its loss terms by hand, the published rows as edits, and both directions learnt."""

import pytest
import torch

from flipside.generators import singla
from flipside.generators.nn.losses import discriminator_loss, generator_loss, kl_to_target, masked_l1
from tests.generators.toys import SINGLA, BlobClassifier, batch_of, in_eval, slices, train


def params(**changes):
    return singla.SinglaParams(**{**SINGLA, **changes})


def target_of(chosen, batch):
    return in_eval(singla.Singla, chosen).target_of(batch)


@pytest.mark.parametrize(("bins", "expected"), [(2, [0, 0, 1, 1, 1]), (10, [0, 4, 5, 9, 9])])
def test_bins_are_equal_parts_and_one_belongs_to_the_last(bins, expected):
    assert singla.bin_of(torch.tensor([0.0, 0.49, 0.5, 0.93, 1.0]), bins).tolist() == expected


def test_the_opposite_is_what_the_classifier_does_not_say():
    logits = torch.logit(torch.tensor([0.04, 0.93]))
    images = torch.zeros(2, 1, 16, 16)
    condition, probability = target_of(params(bins=10), batch_of(images, logits))
    assert condition.tolist() == [9, 0]
    assert probability.tolist() == pytest.approx([0.96, 0.07])


def test_a_random_target_is_a_bin_and_its_middle():
    images = torch.zeros(4, 1, 16, 16)
    batch = batch_of(images)
    object.__setattr__(batch, "uniform", torch.tensor([0.0, 0.26, 0.74, 0.999]))
    condition, probability = target_of(params(bins=4, target="random"), batch)
    assert condition.tolist() == [0, 1, 2, 3]
    assert probability.tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875])


@pytest.fixture
def setting():
    """Networks in eval mode, a batch with one slice called healthy and one called abnormal, its counterfactuals."""
    def make(**changes):
        gan = in_eval(singla.Singla, params(**changes))
        batch = batch_of(slices()[:2, None], torch.tensor([2.0, -3.0]))
        return gan, batch, gan.generate(batch)

    return make


def test_counterfactuals_are_made_under_the_opposite_condition(setting):
    gan, batch, counterfactual = setting()
    torch.testing.assert_close(counterfactual, gan.network(batch.images, torch.tensor([0, 1])))


@pytest.mark.parametrize("reconstruction", ["l1", "carl"])
def test_terms_are_equations_9_and_10(setting, reconstruction):
    gan, batch, counterfactual = setting(reconstruction=reconstruction, lambda_classifier=2.0,
                                                      lambda_cycle=5.0)
    terms = gan.generator_losses(batch, counterfactual)
    own, opposite = torch.tensor([1, 0]), torch.tensor([0, 1])

    def distance(others):
        if reconstruction == "carl":
            return masked_l1(batch.images, others, batch.organ)
        return (batch.images - others).abs().mean()

    expected = {
        "adversarial": 0.1 * generator_loss(gan.discriminator(counterfactual, opposite), "bce"),
        "classifier": 2.0 * kl_to_target(BlobClassifier()(counterfactual), torch.sigmoid(torch.tensor([-2.0, 3.0])),
                                         "logits"),
        "reconstruction": 3.0 * distance(gan.network(batch.images, own)),
        "cycle": 5.0 * distance(gan.network(counterfactual, own)),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_discriminator_sees_images_under_their_bin_and_counterfactuals_under_their_targets(setting):
    gan, batch, counterfactual = setting()
    loss = gan.discriminator_loss(batch, counterfactual)
    real = gan.discriminator(batch.images, torch.tensor([1, 0]))
    fake = gan.discriminator(counterfactual, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(discriminator_loss(real, fake, "bce").item(), rel=1e-5)


def test_zero_weight_leaves_the_term_out(setting):
    gan, batch, counterfactual = setting(lambda_adversarial=0, lambda_reconstruction=0, lambda_cycle=0,
                                                      lambda_total_variation=0.1)
    assert set(gan.generator_losses(batch, counterfactual)) == {"classifier", "total_variation"}


def test_both_directions_are_learnt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator, _ = train(singla.Singla, params(steps=300))
    images, classifier = slices()[:, None], BlobClassifier()
    abnormal = torch.arange(len(images)) % 2 == 0
    with torch.no_grad():
        to_healthy, to_abnormal = generator(images), generator(images, torch.ones(len(images), dtype=torch.long))
    assert (classifier(to_healthy[abnormal]) < 0).float().mean() > 0.9
    assert (classifier(to_abnormal[~abnormal]) > 0).float().mean() > 0.9
    change = (images - to_healthy)[abnormal].abs()
    blob = images[abnormal] > 0.5
    assert change[blob].mean() > 3 * change[~blob].mean()

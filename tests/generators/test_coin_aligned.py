"""COIN-Aligned: each switch does what it names, all of them off are COIN, and the aligned whole removes a blob."""

from dataclasses import replace

import pydantic
import pytest
import torch

from flipside.core.runtime import generator_for
from flipside.generators import coin, coin_aligned
from flipside.generators.nn.losses import dilated_difference, relativistic_loss, total_variation
from tests.generators.toys import ALIGNED, COIN, BlobClassifier, batch_of, in_eval, slices, toy_data, train

OFF = {
    "alignment": "none", "data": "all", "discriminator_condition": "predicted", "adversarial_loss": "bce", "gamma": 0.0,
    "classifier_features": False, "reconstruction": "cycle", "kl_target": "own_if_healthy",
    "lambda_reconstruction": 3.0, "lambda_total_variation": 0.0001,
}


def params(**changes):
    return coin_aligned.CoinAlignedParams(**{**ALIGNED, **changes})


@pytest.fixture
def setting():
    """Networks in eval mode and a batch of two abnormal slices, each with a healthy one."""
    def make(**changes):
        gan = in_eval(coin_aligned.CoinAligned, params(**changes))
        images, healthy = slices()[0:4:2, None], slices()[1:5:2, None]
        classifier = BlobClassifier()
        features = classifier.pooled(classifier.features(images))
        batch = batch_of(images, classifier(images), coin_aligned.AlignedBatch, features=features, healthy=healthy)
        return gan, batch, gan.generate(batch)

    return make


@pytest.mark.parametrize("fuse", ["tanh", "clamp", "none"])
def test_with_every_switch_off_it_is_coin_to_the_last_bit(tmp_path, monkeypatch, fuse):
    monkeypatch.chdir(tmp_path)
    changes = {"fuse": fuse, "cycle_target": "counterfactual", "balance": "sampler"}
    ours, history = train(coin_aligned.CoinAligned, params(**OFF, **changes), "ours")
    theirs, their_history = train(coin.Coin, coin.CoinParams(**{**COIN, **changes}), "theirs")
    assert history == their_history
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    images = slices()[:, None]
    assert torch.equal(ours(images), theirs(images))


def test_an_image_left_alone_has_no_difference_and_costs_nothing(setting):
    """Alignment: without a perturbation nothing differs, though tanh changed every pixel of the counterfactual."""
    gan, batch, _ = setting()
    torch.nn.init.zeros_(gan.network.decoder.head.weight)
    total = gan.network.total(batch.images, batch.features)
    assert (gan.network.aligned(total) - batch.images).abs().max() > 0.1
    assert torch.equal(gan.network.aligned(total), gan.network.align(batch.images))
    assert torch.equal(gan.network.in_input_range(total), batch.images)
    gan.params = params(lambda_reconstruction=1.0)
    terms = gan.generator_losses(batch, total)
    assert terms["reconstruction"] == 0 and terms["total_variation"] == 0
    unaligned = setting(alignment="none", lambda_reconstruction=1.0)[0]
    torch.nn.init.zeros_(unaligned.network.decoder.head.weight)
    terms = unaligned.generator_losses(batch, total)
    assert terms["reconstruction"] > 0.01 and terms["total_variation"] > 5e-5  # the bias that alignment takes away


@pytest.mark.parametrize("fuse", ["tanh", "none"])
def test_the_two_ranges_are_tanh_apart(setting, fuse):
    gan, _, total = setting(fuse=fuse)
    small = total.clamp(-0.9, 0.9)
    torch.testing.assert_close(gan.network.aligned(small), torch.tanh(gan.network.in_input_range(small)))
    assert gan.network.in_input_range(3 * total).abs().max() <= 1


def test_generator_terms_by_hand(setting):
    gan, batch, total = setting(lambda_reconstruction=2.0, lambda_adversarial=0.5)
    images, result = torch.tanh(batch.images), torch.tanh(total)
    real = gan.discriminator(torch.tanh(batch.healthy), None)
    logits = BlobClassifier()(total.clamp(-1, 1))
    expected = {
        "adversarial": 0.5 * relativistic_loss(gan.discriminator(result, None), real),
        "classifier": torch.nn.functional.softplus(logits).mean(),  # KL to 0
        "reconstruction": 2.0 * dilated_difference(images, result, 3),
        "total_variation": 0.001 * total_variation((images - result).abs(), 127.5),
    }
    terms = gan.generator_losses(batch, total)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_the_classifier_judges_the_range_that_is_asked_for(setting):
    gan, batch, total = setting()
    seen = []
    gan.classifier = lambda images: seen.append(images.detach()) or BlobClassifier()(images)
    for sees in ("input_range", "aligned"):
        gan.params = params(classifier_sees=sees)
        gan.generator_losses(batch, total)
    torch.testing.assert_close(seen[0], total.detach().clamp(-1, 1))
    torch.testing.assert_close(seen[1], torch.tanh(total.detach()))


@pytest.mark.parametrize(("gamma", "share"), [(0.0, 1.0), (3.0, 1.0), (3.0, 0.5)])
def test_discriminator_step_is_the_relativistic_loss_with_r1_and_r2(setting, gamma, share):
    """The penalties against autograd image by image; half of a batch of two is its first pair."""
    gan, batch, total = setting(gamma=gamma, penalty_share=share)
    real, fake = torch.tanh(batch.healthy), torch.tanh(total.detach())
    expected = relativistic_loss(gan.discriminator(real, None), gan.discriminator(fake, None))
    for images in (real, fake):
        images = images[: int(2 * share)]
        for image in images:
            leaf = image[None].clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(gan.discriminator(leaf, None).sum(), leaf, create_graph=True)
            expected = expected + gamma / 2 * gradient.square().sum() / len(images)
    loss = gan.discriminator_loss(batch, total)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    parameters = list(gan.discriminator.blocks.parameters())
    for found, wanted in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters),
                             strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_without_pairs_the_discriminator_compares_with_the_images_themselves(setting):
    gan, batch, total = setting(data="all", gamma=0.0)
    alone = replace(batch, healthy=None)
    expected = relativistic_loss(gan.discriminator(torch.tanh(batch.images), None),
                                 gan.discriminator(torch.tanh(total), None))
    assert gan.discriminator_loss(alone, total).item() == pytest.approx(expected.item(),
                                                                                                   rel=1e-5)


def test_paired_batches_are_abnormal_with_healthy_partners():
    data = toy_data()
    batch = in_eval(coin_aligned.CoinAligned, params(batch_size=50)).draw(data, generator_for(1))
    assert (BlobClassifier()(batch.images) > 0).all() and (BlobClassifier()(batch.healthy) < 0).all()
    assert batch.features.shape == (50, 2)
    both = in_eval(coin_aligned.CoinAligned, params(**OFF, batch_size=50)).draw(data, generator_for(1))
    assert both.healthy is None and 0 < (both.logits > 0).sum() < 50


def test_features_steer_the_generator(setting):
    gan, batch, total = setting()
    assert not torch.allclose(gan.network.total(batch.images, batch.features + 1), total)


@pytest.mark.parametrize(("changes", "message"), [
    ({"fuse": "clamp"}, "`fuse: clamp` has none"),
    ({"discriminator_condition": "predicted"}, "set discriminator_condition to none or single"),
])
def test_switches_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        params(**changes)


def test_learns_to_remove_the_blob_from_abnormal_slices_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, beginning = train(coin_aligned.CoinAligned, params(steps=2, adversarial_loss="relativistic"))
    generator, history = train(coin_aligned.CoinAligned, params(steps=300, adversarial_loss="relativistic"))
    images, classifier = slices()[0::2, None], BlobClassifier()
    assert (classifier(images) >= 0).all()
    with torch.no_grad():
        counterfactual = generator(images, classifier.pooled(classifier.features(images)))
    assert (classifier(counterfactual) < 0).float().mean() > 0.9
    change = (images - counterfactual).abs()
    assert change[images > 0.5].mean() > 3 * change[images <= 0.5].mean()
    assert history[-1]["classifier"] < beginning[0]["classifier"]  # before its first update

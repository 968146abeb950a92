"""VA-GAN: critic's loss and penalty by hand, the weight of the map, and a blob that is taken away."""

import pytest
import torch

from flipside.generators import va_gan
from flipside.generators.training.unpaired import UnpairedBatch
from tests.generators.toys import LESION, VA_GAN, BlobClassifier, batch_of, slices, train


def params(**changes):
    return va_gan.VaGanParams(**{**VA_GAN, **changes})


@pytest.fixture
def setting():
    torch.manual_seed(0)
    gan = va_gan.VaGan(params(), BlobClassifier(), LESION)
    images = slices()[:4, None]
    batch = batch_of(images[::2], healthy=images[1::2], kind=UnpairedBatch)
    object.__setattr__(batch, "uniform", torch.tensor([0.25, 1.0]))
    return gan, batch, gan.generate(batch)


def test_critics_loss_and_gradient_penalty(setting):
    gan, batch, made = setting
    critic, penalties = gan.discriminator, []
    for number, place in enumerate((0.25, 1.0)):
        point = (place * batch.healthy + (1 - place) * made.detach())[number : number + 1].requires_grad_()
        (gradient,) = torch.autograd.grad(critic(point).sum(), point)
        penalties.append((gradient.flatten().norm() - 1) ** 2)
    expected = critic(made).mean() - critic(batch.healthy).mean() + 7.0 * sum(penalties) / 2
    gan.params = params(lambda_gradient_penalty=7.0)
    loss = gan.discriminator_loss(batch, made)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_penalty_teaches_the_critic(setting):
    gan, batch, made = setting
    gan.params = params(lambda_gradient_penalty=1000.0)
    gan.discriminator_loss(batch, made).backward()
    assert all(weight.grad.isfinite().all() for weight in gan.discriminator.parameters())
    assert next(gan.discriminator.parameters()).grad.abs().sum() > 0


def test_generators_terms(setting):
    gan, batch, made = setting
    gan.params = params(lambda_map=3.0)
    terms = gan.generator_losses(batch, made)
    assert terms["adversarial"].item() == pytest.approx(-gan.discriminator(made).mean().item())
    assert terms["map"].item() == pytest.approx(
        3 * (made - batch.images).abs().mean().item() * va_gan.PUBLISHED_LESION / LESION)


@pytest.mark.parametrize("fuse", ["tanh", "clamp"])
def test_the_sum_is_brought_into_the_range(fuse):
    torch.manual_seed(0)
    generator = va_gan.AdditiveNetwork([4, 8], fuse)
    images = slices()[:2, None]
    total = images + generator.network(images)
    torch.testing.assert_close(generator(images), total.tanh() if fuse == "tanh" else total.clamp(-1, 1))


def test_a_blob_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator, _ = train(va_gan.VaGan, params(steps=300, generator_every=2))
    images = slices()[::2, None]
    blob = images > 0.5
    with torch.no_grad():
        change = (images - generator(images))
    assert change[blob].mean() > 5 * change[~blob].abs().mean()

"""CX-GAN: its loss terms by hand in both variants, image replay, and a blob that is healed and mapped."""

import pytest
import torch

from flipside.core.runtime import generator_for
from flipside.generators import cx_gan
from flipside.generators.nn.patch_networks import InstanceUNet, PatchDiscriminator, ReplayPool
from flipside.generators.training.unpaired import UnpairedBatch
from tests.generators.toys import CX_GAN, LESION, BlobClassifier, batch_of, slices, toy_data, train


def params(**changes):
    return cx_gan.CxGanParams(**{**CX_GAN, **changes})


@pytest.fixture
def setting():
    """Networks, a batch of two abnormal and two healthy slices, and what is made of them."""
    def make(**changes):
        torch.manual_seed(0)
        gan = cx_gan.CxGan(params(**changes), BlobClassifier(), LESION)
        images = slices()[:4, None]
        batch = batch_of(images[::2], healthy=images[1::2], kind=UnpairedBatch)
        return gan, batch, gan.generate(batch)

    return make


@pytest.mark.parametrize("fuse", ["tanh", "clamp"])
def test_terms_of_the_integrated_model(setting, fuse):
    gan, batch, made = setting(fuse=fuse, lambda_map=2.0)
    x, y, generator = batch.images, batch.healthy, gan.network
    judges = gan.discriminator.networks

    def g(images):
        result = generator.to_healthy(images)
        return torch.tanh(result) if fuse == "tanh" else (images + result).clamp(-1, 1)

    def f(images):
        return torch.tanh(generator.back(images))

    healed, ill = g(x), y + f(y)
    torch.testing.assert_close(made, torch.cat([healed, ill]))
    expected = {
        "adversarial": ((judges["healthy"](healed) - 1) ** 2).mean() + ((judges["abnormal"](ill) - 1) ** 2).mean(),
        "cycle": 10 * ((healed + f(healed) - x).abs().mean() + (g(ill) - y).abs().mean()),
        "identity": (g(y) - y).abs().mean() + f(x).abs().mean(),
        "map": 2 * f(healed).abs().mean(),
    }
    terms = gan.generator_losses(batch, made)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    torch.testing.assert_close(generator.change(x, healed), -f(healed))


def test_terms_of_the_cascaded_model_and_what_its_map_learns_from(setting):
    gan, batch, made = setting(variant="cascaded")
    x, y, generator = batch.images, batch.healthy, gan.network
    healed = (x + generator.to_healthy(x)).clamp(-1, 1)
    mapped = x + torch.tanh(generator.mapper(x))
    torch.testing.assert_close(made.chunk(3)[1], (y + generator.back(y)).clamp(-1, 1))  # an image, no sum
    torch.testing.assert_close(made.chunk(3)[2], mapped)
    terms = gan.generator_losses(batch, made)
    assert terms["map_distance"].item() == pytest.approx(100 * (mapped - healed).abs().mean().item(), rel=1e-4)
    score = gan.discriminator.networks["mapped"](mapped)
    assert terms["map_adversarial"].item() == pytest.approx(50 * ((score - 1) ** 2).mean().item(), rel=1e-4)
    (terms["map_distance"] + terms["map_adversarial"]).backward()
    assert all(weight.grad is None or weight.grad.eq(0).all() for weight in generator.to_healthy.parameters())
    assert any(weight.grad.abs().sum() > 0 for weight in generator.mapper.parameters())


@pytest.mark.parametrize(("variant", "kinds"), [("integrated", 2), ("cascaded", 3)])
def test_discriminators_see_each_kind_against_its_own(setting, variant, kinds):
    gan, batch, made = setting(variant=variant, replay=0)
    judges = gan.discriminator.networks
    reals = {"healthy": batch.healthy, "abnormal": batch.images, "mapped": batch.healthy}
    expected = sum(0.5 * (((judges[kind](reals[kind]) - 1) ** 2).mean() + (judges[kind](fake) ** 2).mean())
                   for kind, fake in zip(judges, made.chunk(kinds), strict=True))
    loss = gan.discriminator_loss(batch, made)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(("variant", "network", "term"), [
    ("integrated", "back", "identity"), ("cascaded", "mapper", "map_distance")])
def test_a_map_that_points_out_of_the_range_costs_something(setting, variant, network, term):
    gan, _, _ = setting(variant=variant, lambda_map_distance=1.0)
    last = getattr(gan.network, network).decoder[-1][1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-2.0)  # F and M are tanh(-2) everywhere
    air = torch.full((2, 1, 16, 16), -1.0)
    batch = batch_of(air, healthy=air, kind=UnpairedBatch)
    terms = gan.generator_losses(batch, gan.generate(batch))
    assert terms[term].item() > 0.96
    terms[term].backward()
    assert last.bias.grad.item() < 0  # a higher bias costs less


@pytest.mark.parametrize(("variant", "kind"), [("integrated", "abnormal"), ("cascaded", "mapped")])
def test_discriminators_see_how_far_out_of_the_range_a_map_points(setting, variant, kind):
    gan, batch, made = setting(variant=variant, replay=0)
    at = list(gan.discriminator.networks).index(kind)
    scores = []
    for low in (-1.0, -1.9):
        sums = list(made.detach().chunk(len(gan.discriminator.networks)))
        sums[at] = torch.full_like(sums[at], low)
        losses = gan.generator_losses(batch, torch.cat(sums))
        scores.append((gan.discriminator_loss(batch, torch.cat(sums)).item(),
                       losses["adversarial" if kind == "abnormal" else "map_adversarial"].item()))
    assert scores[0][0] != scores[1][0] and scores[0][1] != scores[1][1]


def test_batches_have_as_many_slices_of_either_label():
    data = toy_data()
    gan = cx_gan.CxGan(params(), BlobClassifier(), LESION)
    batch = gan.draw(data, generator_for(1))
    assert batch.images.shape == batch.healthy.shape == (8, 1, 16, 16)
    assert (batch.images.amax(dim=(1, 2, 3)) > 0.5).all() and (batch.healthy.amax(dim=(1, 2, 3)) < 0.5).all()
    data.labels.fill_(True)
    with pytest.raises(ValueError, match="32 abnormal and 0 healthy"):
        gan.draw(data, generator_for(1))


def test_both_labels_images_are_augmented_and_each_image_in_its_own_way():
    data = toy_data()
    plain, mirrored, some = (
        cx_gan.CxGan(params(augmentation=[{"name": "horizontal_flip", "probability": probability}]),
                     data.classifier, LESION).draw(data, generator_for(1)) for probability in (0, 1, 0.5))
    for name in ("images", "healthy"):
        before, after, chosen = (getattr(batch, name) for batch in (plain, mirrored, some))
        assert torch.equal(after, before.flip(3)) and not torch.equal(after, before)
        kept = (chosen == before).flatten(1).all(dim=1)  # (B,)
        assert 0 < kept.sum() < len(kept) and torch.equal(chosen[~kept], after[~kept])


def test_a_pool_gives_back_what_went_in_and_keeps_its_size():
    pool, seen = ReplayPool(4), []
    for step in range(30):
        images = torch.full((3, 1, 2, 2), 0.0) + torch.arange(3).view(3, 1, 1, 1) + 3 * step
        shown = pool(images, torch.rand(3, generator=generator_for(step)))
        assert set(shown[:, 0, 0, 0].tolist()) <= set(range(3 * step + 3))
        seen += [value < 3 * step for value in shown[:, 0, 0, 0].tolist()]
    assert len(pool.kept) == 4
    assert 0.3 < sum(seen) / len(seen) < 0.6  # about half are of an earlier step
    other = ReplayPool(4)
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other.kept, pool.kept)


def test_the_u_net_keeps_the_size_and_refuses_what_it_cannot_halve():
    assert InstanceUNet([4, 8, 8])(torch.zeros(2, 1, 16, 24)).shape == (2, 1, 16, 24)
    assert PatchDiscriminator([4, 8])(torch.zeros(2, 1, 16, 24)).shape == (2, 1, 4, 6)
    with pytest.raises(ValueError, match=r"\(12, 16\).*halved 3 times.*multiple of 8.*`channels`"):
        InstanceUNet([4, 8, 8])(torch.zeros(2, 1, 12, 16))


@pytest.mark.parametrize("variant", ["integrated", "cascaded"])
def test_a_blob_is_healed_and_mapped(tmp_path, monkeypatch, variant):
    monkeypatch.chdir(tmp_path)
    generator, _ = train(cx_gan.CxGan, params(variant=variant, steps=120, generator_every=1))
    images = slices()[::2, None]
    blob = images > 0.5
    with torch.no_grad():
        healthy = generator(images)
        change = generator.change(images, healthy)
    assert (images - healthy)[blob].mean() > 0.5 > 5 * (images - healthy)[~blob].abs().mean()
    assert -change[blob].mean() > 3 * change[~blob].abs().mean()

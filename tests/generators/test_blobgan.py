"""BlobGAN: the lazy penalty against autograd, shapes in every profile, its loss terms, short trainings, refusals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from flipside.cli.profile import read_profile
from flipside.core.runtime import generator_for
from flipside.generators import blobgan
from flipside.generators.base import state
from flipside.generators.codes.reconstruction import layout_distance
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.generators.nn.blob_renderer import SpatialConv
from flipside.generators.nn.stylegan_layers import ResidualTrunk, blur, deviation_map
from flipside.generators.training.logistic import gradient_penalty
from tests.generators.toys import BLOBGAN, LESION, BlobClassifier, toy_data, train

PROFILES = [file for file in sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))
            if isinstance(read_profile(file.stem)["image_size"], int)  # it draws squares alone
            and file.stem != "demo"]  # which has other methods alone


def params(**changes):
    return blobgan.BlobGANParams(**{**BLOBGAN, **changes})


@pytest.fixture
def setting():
    def make(**changes):
        torch.manual_seed(0)
        gan = blobgan.BlobGAN(params(**changes), BlobClassifier(), LESION)
        return gan, gan.draw(toy_data(), generator_for(1))

    return make


def test_penalty_is_the_squared_gradient_of_each_image():
    torch.manual_seed(0)
    network = ResidualTrunk(8, [4, 4], 1, minibatch_std=False)
    images = torch.rand(3, 1, 8, 8)
    expected = 0.0
    for image in images:
        image = image[None].clone().requires_grad_(True)
        network(image).sum().backward()
        expected += float(image.grad.square().sum()) / 3
    assert float(gradient_penalty(network, images).detach()) == pytest.approx(expected, rel=1e-4)


def test_penalty_is_lazy_and_as_heavy_as_the_steps_without_it(setting):
    gan, batch = setting(r1_weight=2.0, r1_every=4, sampled_every=1)
    losses = []
    for step in range(5):
        object.__setattr__(batch, "step", step)
        losses.append(float(gan.discriminator_loss(batch, None).detach()))
    penalty = float(gradient_penalty(gan.discriminator, batch.images).detach())
    assert losses[1] == losses[2] == losses[3] and losses[0] == losses[4]
    assert losses[0] - losses[1] == pytest.approx(2.0 * 4 * penalty, rel=1e-3)


def test_the_penalty_counts_the_adversarial_steps_alone(setting):
    gan, batch = setting(r1_weight=2.0, r1_every=2, sampled_every=3)
    losses = []
    for step in range(7):
        object.__setattr__(batch, "step", step)
        losses.append(gan.discriminator_loss(batch, None))
    assert [loss is None for loss in losses] == [False, True, True, False, True, True, False]
    first, second, third = (float(losses[step].detach()) for step in (0, 3, 6))
    penalty = float(gradient_penalty(gan.discriminator, batch.images).detach())
    assert first == third and first - second == pytest.approx(2.0 * 2 * penalty, rel=1e-3)


def test_the_discriminators_adam_knows_of_the_lazy_penalty():
    chosen = params(r1_every=16, learning_rate=0.001, betas=[0.0, 0.99])
    assert chosen.adam("discriminator") == {"lr": 0.001 * 16 / 17, "betas": (0.0, 0.99 ** (16 / 17)), "eps": 1e-5}
    assert chosen.adam("generator") == {"lr": 0.001, "betas": (0.0, 0.99), "eps": 1e-5}


def test_the_learning_rate_halves_as_in_tace():
    chosen = params(schedule="halving", learning_rate=0.001, halve_every=20000, steps=105000)
    rates = [chosen.learning_rate_at(step) for step in (0, 19999, 20000, 104999)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 1e-3 / 32])


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_networks_fit_the_images_of_every_profile(file):
    values = read_profile(file.stem)
    base = yaml.safe_load((file.parents[1] / "params.yaml").read_text())["generators"]["blobgan"]
    base |= {key.rpartition(".")[2]: value for key, value in values.items() if key.startswith("generators.blobgan.")}
    chosen, side = blobgan.BlobGANParams(**base), values["image_size"]
    with torch.device("meta"):  # shapes alone: the published widths would take gigabytes
        architecture = blobgan.BlobGAN.architecture_of(chosen, BlobClassifier())
        encoder = build_encoder(architecture)
        discriminator = ResidualTrunk(side, chosen.discriminator_channels, 1, minibatch_std=True)
        images = torch.empty(2, 1, side, side)
        assert encoder(images).shape == (2, chosen.layout_width)
        assert discriminator(images).shape == (2, 1)
    assert chosen.size_in * 2 ** (len(chosen.channels) - 1) == side


def test_images_of_z(setting):
    gan, batch = setting()
    generator = gan.network
    layout = generator.decode(generator.layout(batch.z[0]))
    assert layout.xy.shape == (8, 4, 2) and layout.feat.shape == (8, 5, 6) and layout.style.shape == (8, 5, 5)
    assert 0 <= layout.xy.min() and layout.xy.max() <= 1
    torch.testing.assert_close(layout.feat.square().mean(dim=2), torch.ones(8, 5), atol=1e-3, rtol=0)
    assert generator(batch.z[0]).shape == (8, 1, 16, 16)
    assert torch.equal(generator(batch.z[0]), generator(batch.z[0]))  # fixed noise
    one = generator.render(layout.rows(torch.tensor([2])))
    torch.testing.assert_close(one, generator.render(layout)[2:3], atol=1e-5, rtol=1e-4)


def test_noise_maps_are_those_up_to_a_side(setting):
    gan, batch = setting()
    generator = gan.network
    renderer = generator.renderer
    assert renderer.noise_sides == [4, 8, 8, 16, 16] and renderer.noise_numbers(8) == 16 + 64 + 64
    layout = generator.decode(generator.layout(batch.z[0]))
    noise = torch.zeros(8, renderer.noise_numbers(8))
    torch.testing.assert_close(generator.render(replace(layout, noise=noise)), generator.render(layout))
    noise[:, 16 + 64 + 27] = 5.0  # row 3, column 3 of the second 8 x 8 map
    changed = (generator.render(replace(layout, noise=noise)) - generator.render(layout)).abs()[:, 0]
    assert (changed[:, 4:10, 4:10].sum(dim=(1, 2)) > 0).all() and not changed[:, 12:].any()
    assert [part.shape[-1] for part in renderer.noise_maps(noise)[:3]] == [4, 8, 8]
    assert renderer.noise_maps(noise)[3:] == [None, None]


def test_a_modulated_convolution_is_one_of_scaled_inputs():
    torch.manual_seed(0)
    layer = SpatialConv(3, 4, 3, style=2, side=4)
    x, styles = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2)
    shares = torch.softmax(torch.randn(2, 3, 4, 4), dim=1)
    found = layer(x, styles, {4: shares}, None)
    scale = torch.einsum("bkhw,bkc->bchw", shares, layer.affine(styles))
    scale = scale / scale.square().mean(dim=1, keepdim=True).sqrt()
    weight = layer.weight / layer.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    expected = F.leaky_relu(F.conv2d(x * scale, weight, padding=1), 0.2) * 2**0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_upsampling_keeps_the_place_and_the_brightness():
    flat = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(blur(flat, padding=1)[..., 2:-2, 2:-2], torch.ones(1, 2, 3, 3))
    layer = SpatialConv(1, 1, 3, style=1, side=8, up=True)
    peak = torch.zeros(1, 1, 8, 8)
    peak[0, 0, 3, 4] = 1.0
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1.0
        made = layer(peak, torch.zeros(1, 1, 1), {8: torch.ones(1, 1, 8, 8)}, None)
    rows = (made[0, 0].sum(dim=1) * torch.arange(16)).sum() / made.sum()
    columns = (made[0, 0].sum(dim=0) * torch.arange(16)).sum() / made.sum()
    assert (float(rows), float(columns)) == pytest.approx((3.5 * 2 - 0.5 + 0.0, 4.5 * 2 - 0.5), abs=0.51)


def test_the_deviation_map_is_that_of_groups():
    x = torch.randn(8, 3, 2, 2, generator=generator_for(5))
    groups = [[n, n + 2, n + 4, n + 6] for n in (0, 1)]
    expected = [float(x[rows].var(dim=0, unbiased=False).sqrt().mean()) for rows in groups]
    found = deviation_map(x)
    assert found.shape == (8, 1, 2, 2)
    assert found[:, 0, 0, 0].tolist() == pytest.approx(expected * 4, rel=1e-3)


def test_joint_training_adds_equation_2(setting):
    gan, batch = setting(sampled_every=2)
    sampled = gan.generator_losses(batch, gan.generate(batch))
    assert set(sampled) == {"adversarial", "latent"}
    object.__setattr__(batch, "step", 1)
    terms = gan.generator_losses(batch, gan.generate(batch))
    assert set(terms) == {"perceptual", "pixel", "decision"}
    generator = gan.network
    made = generator.render(generator.decode(generator.encoder(batch.images)))
    assert float(terms["pixel"]) == pytest.approx(5.0 * float((made - batch.images).abs().mean()), rel=1e-4)
    features = [gan.classifier.pooled(gan.classifier.features(one)) for one in (made, batch.images)]
    assert float(terms["decision"]) == pytest.approx(0.1 * float(F.mse_loss(*features)), rel=1e-3)
    layout = gan.sample_layout(batch, 0)
    found = generator.decode(generator.encoder(gan.sample_images(batch, 0)))
    assert float(sampled["latent"]) == pytest.approx(float(layout_distance(found, layout).mean()), rel=1e-3)


def test_published_training_has_the_adversarial_term_alone_and_no_encoder(setting):
    gan, batch = setting(training="adversarial", lambda_adversarial=1.0)
    counterfactual = gan.generate(batch)
    terms = gan.generator_losses(batch, counterfactual)
    expected = F.softplus(-gan.discriminator(counterfactual)).mean()
    assert set(terms) == {"adversarial"} and float(terms["adversarial"]) == pytest.approx(float(expected), rel=1e-5)
    assert gan.network.encoder is None


def test_training_reconstructs_better(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "RECORD_EVERY", 5)
    _, history = train(blobgan.BlobGAN, params(steps=30, ema_decay=0.5))
    assert history[-1]["pixel"] < history[0]["pixel"]


def test_slices_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"`size_in` 8 and 3 `channels` make images of 32 x 32 pixels.*\(16, 16\)"):
        blobgan.BlobGAN(params(size_in=8), BlobClassifier(), LESION).draw(toy_data(), generator_for(0))
    with pytest.raises(ValueError, match="halve 4 times"):
        ResidualTrunk(24, [4] * 5, 1, minibatch_std=True)

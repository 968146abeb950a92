"""StyleGAN2 of StylEx: modulation against a slow reference, the condition, turns, losses, path length, resuming."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from flipside.cli.profile import read_profile
from flipside.core.runtime import generator_for
from flipside.generators import stylegan
from flipside.generators.base import state
from flipside.generators.codes.styles import Styles
from flipside.generators.nn.losses import kl_to_target
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.nn.stylegan_synthesis import ModulatedConv
from tests.generators.toys import LESION, STYLEGAN, BlobClassifier, toy_data, train

PROFILES = [file for file in sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))
            if isinstance(read_profile(file.stem)["image_size"], int)  # it draws squares alone
            and file.stem != "demo"]  # which has other methods alone


def params(**changes):
    return stylegan.StyleGANParams(**{**STYLEGAN, **changes})


@pytest.fixture
def setting():
    def make(step=0, **changes):
        torch.manual_seed(0)
        gan = stylegan.StyleGAN(params(**changes), BlobClassifier(), LESION)
        batch = gan.draw(toy_data(), generator_for(1))
        object.__setattr__(batch, "step", step)
        return gan, batch

    return make


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_networks_fit_the_images_of_every_profile(file):
    """With a 32nd of the channels: it is the number of sizes that has to fit."""
    values = read_profile(file.stem)
    base = yaml.safe_load((file.parents[1] / "params.yaml").read_text())["generators"]["stylegan"]
    base |= {key.rpartition(".")[2]: value for key, value in values.items() if key.startswith("generators.stylegan.")}
    for name in ("channels", "discriminator_channels", "encoder_channels"):
        base[name] = [max(1, count // 32) for count in base[name]]
    chosen, side = stylegan.StyleGANParams(**base | {"width": 8, "latent": 8}), values["image_size"]
    generator = stylegan.StyleGAN.build(stylegan.StyleGAN.architecture_of(chosen, BlobClassifier()))
    discriminator = ResidualTrunk(side, chosen.discriminator_channels, 1, minibatch_std=True)
    images = torch.zeros(1, 1, side, side)
    with torch.no_grad():
        made = generator.render(generator.encoded(images, torch.tensor([0.3])))
        assert made.shape == images.shape
        assert discriminator(made).shape == (1, 1)


@pytest.mark.parametrize("up", [False, True])
def test_scaled_maps_are_scaled_and_normalised_weights(up):
    torch.manual_seed(0)
    side = 16 if up else 8
    layer = ModulatedConv(3, 4, side, up=up)
    x, style = torch.randn(2, 3, 8, 8), torch.randn(2, 3)
    found = layer(x, style, None)
    for row in range(2):
        weight = layer.weight / 27**0.5 * style[row][None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            kernel = (4 * line[:, None] * line).expand(4, 1, 4, 4)
            wide = F.conv_transpose2d(x[row : row + 1], weight.transpose(0, 1), stride=2)
            expected = F.conv2d(wide, kernel, padding=1, groups=4)
        else:
            expected = F.conv2d(x[row : row + 1], weight, padding=1)
        assert expected.shape == (1, 4, side, side)
        torch.testing.assert_close(found[row : row + 1], F.leaky_relu(expected, 0.2) * 2**0.5, atol=1e-4, rtol=1e-3)


def test_layer_by_layer_is_the_whole(setting):
    gan, batch = setting()
    generator = gan.network
    synthesis, styles = generator.synthesis, generator.encoded(batch.images, torch.sigmoid(batch.logits))
    whole, state = generator.render(styles), synthesis.begin(len(batch.images))
    assert len(styles.space) == len(synthesis.layers) == 5 and len(styles.images) == 3
    for layer in range(len(synthesis.layers)):
        assert torch.equal(synthesis.finish(state, styles, layer), whole)
        assert state.maps.shape[1] == styles.space[layer].shape[1]
        state = synthesis.advance(state, styles, layer)
    torch.testing.assert_close(generator.render(styles.rows(torch.tensor([3]))), whole[3:4], atol=1e-5, rtol=1e-4)
    joined = Styles.joined([styles.rows(torch.arange(3)), styles.rows(torch.arange(3, 8))])
    assert all(torch.equal(one, other) for one, other in zip(joined.space, styles.space, strict=True))


def test_the_classifiers_answer_reaches_the_image(setting):
    gan, batch = setting()
    generator = gan.network
    w = generator.codes(generator.encoder(batch.images))
    healthy, abnormal = (generator.render(generator.styles(w, torch.full((8,), p))) for p in (0.0, 1.0))
    assert (healthy - abnormal).abs().mean() > 1e-3
    batch_of_another = stylegan.StyleBatch(**{**vars(batch), "logits": -batch.logits})
    one, other = (gan.generate(each) for each in (batch, batch_of_another))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize(("every", "from_z"), [(2, [1, 3, 5, 7]), (4, [3, 7])])
def test_every_nth_step_starts_with_z(every, from_z):
    gan = stylegan.StyleGAN(params(sampled_every=every), BlobClassifier(), LESION)
    assert [step for step in range(8) if not gan.starts_with_slices(step)] == from_z


def test_a_step_from_z_has_no_reconstruction(setting):
    gan, batch = setting(step=1)
    made = gan.generate(batch)
    assert made.shape == batch.images.shape
    terms = gan.generator_losses(batch, made)
    assert set(terms) == {"adversarial"}
    expected = 0.1 * F.softplus(-gan.discriminator(made.clamp(-1, 1))).mean()
    assert float(terms["adversarial"]) == pytest.approx(float(expected), rel=1e-5)


def test_pixels_out_of_range_are_only_taken_back(setting):
    gan, batch = setting(step=0)
    made = torch.full_like(batch.images, 0.5)
    made[..., :4], made[..., -4:] = 3.0, -3.0
    made.requires_grad_(True)
    terms = gan.generator_losses(batch, made)
    of_pixels, = torch.autograd.grad(terms.pop("pixel"), made)
    assert (of_pixels[..., :4] > 0).all() and (of_pixels[..., -4:] < 0).all()
    of_networks, = torch.autograd.grad(sum(terms.values()), made)
    assert not of_networks[..., :4].any() and not of_networks[..., -4:].any() and of_networks[..., 4:-4].any()


def test_the_second_z_rules_the_layers_from_the_crossover_on(setting):
    gan, batch = setting(step=1)
    generator = gan.network
    first, second = (generator.sampled(z, torch.sigmoid(batch.logits)) for z in batch.z)
    seen = []
    generator.synthesis.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    object.__setattr__(batch, "crossover", 3)
    gan.generate(batch)
    styles, = seen
    for layer, values in enumerate(styles.space):
        torch.testing.assert_close(values, (first if layer < 3 else second).space[layer])
    for size, values in enumerate(styles.images):  # takes the code of the next layer: 1, 3, 5
        torch.testing.assert_close(values, (first if 2 * size + 1 < 3 else second).images[size])


def test_mixing_is_a_share_of_the_draws():
    gans = [stylegan.StyleGAN(params(mixing=share), BlobClassifier(), LESION) for share in (0.0, 1.0)]
    draws = [gan.draw(toy_data(), generator_for(seed)).crossover for gan in gans for seed in range(12)]
    assert set(draws[:12]) == {6} and max(draws[12:]) < 6 and min(draws[12:]) >= 1 and len(set(draws[12:])) > 1


def test_a_step_from_slices_gives_them_back(setting):
    gan, batch = setting(step=2)  # no path length, no penalty
    generator, classifier = gan.network, gan.classifier
    made = gan.generate(batch)
    terms = gan.generator_losses(batch, made)
    assert set(terms) == {"adversarial", "perceptual", "pixel", "classifier", "code"}
    assert float(terms["pixel"]) == pytest.approx(5.0 * float((made - batch.images).abs().mean()), rel=1e-4)
    answer = kl_to_target(classifier(made.clamp(-1, 1)), torch.sigmoid(batch.logits), "logits")
    assert float(terms["classifier"]) == pytest.approx(float(answer), rel=1e-3)
    w, again = generator.encoder(batch.images), generator.encoder(made.clamp(-1, 1))
    assert float(terms["code"]) == pytest.approx(0.2 * float((w - again).abs().mean()), rel=1e-3)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in generator.encoder.parameters())
    assert all(parameter.grad is None for parameter in generator.mapping.parameters())


def test_path_length_is_the_norm_of_each_images_gradient(setting):
    gan, batch = setting(step=4)
    generator = gan.network
    found = stylegan.path_length_penalty(generator, batch)
    source = torch.Generator().manual_seed(batch.noise_seed + 1)
    probability = torch.sigmoid(batch.logits[:4])
    codes = generator.codes(generator.mapping(batch.z[0, :4])).detach()
    images = generator.render(generator.styles(codes, probability), source)
    y = torch.randn(images.shape, generator=source) / 16  # of 16 x 16 pixels
    lengths = []
    for row in range(4):
        one = codes[row : row + 1].clone().requires_grad_(True)
        made = generator.render(generator.styles(one, probability[row : row + 1]))
        gradient, = torch.autograd.grad((made * y[row]).sum(), one)
        lengths.append(float(gradient.square().sum(dim=2).mean().sqrt()))
    mean = 0.01 * sum(lengths) / 4  # one hundredth of the way from 0
    assert float(generator.path_length) == pytest.approx(mean, rel=1e-3)
    expected = sum((length - mean) ** 2 for length in lengths) / 4
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)
    found.backward()
    assert all(parameter.grad is not None for parameter in generator.mapping.parameters())


def test_path_length_is_lazy_and_the_adams_know_of_it(setting):
    gan, batch = setting()
    terms = []
    for step in range(5):
        object.__setattr__(batch, "step", step)
        terms.append(gan.generator_losses(batch, gan.generate(batch)))
    assert ["path_length" in each for each in terms] == [True, False, False, False, True]
    assert gan.params.adam("generator")["lr"] == pytest.approx(2e-3 * 4 / 5)
    assert params(path_length_weight=0.0).adam("generator")["lr"] == pytest.approx(2e-3)
    assert params(r1_every=16).adam("discriminator")["lr"] == pytest.approx(2e-3 * 16 / 17)


def test_training_reconstructs_better(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "RECORD_EVERY", 5)
    trained, history = train(stylegan.StyleGAN, params(steps=30, ema_decay=0.5))
    assert history[-1]["pixel"] < history[0]["pixel"]
    assert float(trained.path_length) > 0


def test_slices_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"generators.stylegan: `size_in` 8 and 3 `channels` make images of 32 x 32"):
        stylegan.StyleGAN(params(size_in=8), BlobClassifier(), LESION).draw(toy_data(), generator_for(0))

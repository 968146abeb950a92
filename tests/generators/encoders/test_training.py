"""The encoder: equations 1 and 2 by hand, both phases, and a killed training that ends as an undisturbed one."""

import pytest
import torch
import torch.nn.functional as F

from flipside.core.checkpoint import Scratch
from flipside.core.runtime import generator_for
from flipside.generators.base import state
from flipside.generators.blobgan import BlobGAN, BlobGANParams
from flipside.generators.codes.reconstruction import layout_distance, observer_of
from flipside.generators.encoders import training as encoder
from flipside.generators.encoders.training import EncoderParams, EncoderTraining
from flipside.generators.nn.blob_encoder import build_encoder
from tests.generators.codes.test_blobs import layout
from tests.generators.toys import BLOBGAN, ENCODER, BlobClassifier, slices, toy_data
from tests.killed import dies_at


@pytest.fixture
def training():
    def make(**changes):
        torch.manual_seed(0)
        architecture = BlobGAN.architecture_of(BlobGANParams(**BLOBGAN), BlobClassifier())
        generator = BlobGAN.build(architecture).eval().requires_grad_(False)
        return EncoderTraining(build_encoder(architecture), generator, observer_of(BlobClassifier()),
                               EncoderParams(**{**ENCODER, **changes}))

    return make


def test_distance_of_layouts_is_the_mean_over_six_groups():
    one, other = layout(seed=1), layout(seed=2)
    parts = [F.mse_loss(one.xy[0, :, axis], other.xy[0, :, axis]) for axis in (0, 1)]
    parts += [F.mse_loss(getattr(one, name)[0], getattr(other, name)[0]) for name in ("size", "shape", "feat", "style")]
    assert float(layout_distance(one, other)[0]) == pytest.approx(float(sum(parts)) / 6, rel=1e-5)
    assert layout_distance(one, one).eq(0).all()


def test_equation_1_is_on_h(training):
    setting, z = training(), torch.randn(3, 8)
    h = setting.generator.layout(z)
    expected = F.mse_loss(setting.encoder(setting.generator.render(setting.generator.decode(h))), h)
    terms = setting.pretrain_terms(torch.zeros(3, 1, 16, 16), z)
    assert float(terms["h"]) == pytest.approx(float(expected), rel=1e-5)
    terms["h"].backward()
    assert all(parameter.grad is not None for parameter in setting.encoder.parameters())


def test_truncation_moves_every_h_toward_the_mean(training):
    plain, halved, z = training(), training(truncation=0.5), torch.randn(5, 8, generator=generator_for(2))
    h = plain.generator.layout(z)
    assert torch.equal(plain.layout(z), h)
    many = plain.generator.layout(torch.randn(20_000, 8, generator=generator_for(9))).mean(dim=0)
    torch.testing.assert_close(halved.layout(z), (h + many) / 2, atol=0.05, rtol=0)
    assert (halved.layout(z) - h).abs().max() > 0.2
    images = torch.zeros(5, 1, 16, 16)
    assert float(halved.pretrain_terms(images, z)["h"].detach()) != float(plain.pretrain_terms(images, z)["h"].detach())


def test_equation_2_has_all_terms_with_their_weights(training):
    setting, z, images = training(), torch.randn(3, 8), slices()[:3, None]
    terms = setting.finetune_terms(images, z)
    assert set(terms) == {f"{kind}_{name}" for kind in ("real", "generated")
                          for name in ("perceptual", "pixel", "decision")} | {"latent"}
    generator, classifier = setting.generator, setting.observer.classifier
    truth = generator.decode(generator.layout(z))
    for kind, originals, weights in (("real", images, (1.0, 5.0, 0.1)), ("generated", generator.render(truth),
                                                                         (0.5, 1.0, 0.2))):
        found = generator.decode(setting.encoder(originals))
        made = generator.render(found)
        assert float(terms[f"{kind}_pixel"]) == pytest.approx(weights[1] * float(F.mse_loss(made, originals)), rel=1e-3)
        features = [classifier.pooled(classifier.features(one)) for one in (made, originals)]
        assert float(terms[f"{kind}_decision"]) == pytest.approx(weights[2] * float(F.mse_loss(*features)), rel=1e-3)
    assert float(terms["latent"]) == pytest.approx(2.0 * float(layout_distance(found, truth).mean()), rel=1e-3)


def test_a_killed_training_goes_on_to_the_same_encoder(training, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "SAVE_EVERY_SECONDS", -1.0)
    monkeypatch.setattr(state, "RECORD_EVERY", 2)

    def run(setting):
        return encoder.train_encoder(setting, toy_data(), 3, Scratch("encoder", "x"))[:2]

    whole, history = run(training())
    Scratch("encoder", "x").clear()
    assert [row["step"] for row in history] == [2, 4, 6, 8, 10, 12]
    assert "h" in history[2] and "latent" in history[3]
    for at, kept in ((5, 4), (10, 8)):  # in the first phase and in the second
        with dies_at(at, encoder, "generator_for"):
            run(training())
        resumed, curves = run(training())
        assert f"resuming encoder at step {kept}" in capsys.readouterr().out
        Scratch("encoder", "x").clear()
        assert curves == history
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("training", ["joint", "adversarial"])
def test_training_goes_on_from_the_encoder_that_learnt_with_the_generator(training):
    torch.manual_seed(0)
    architecture = BlobGAN.architecture_of(BlobGANParams(**BLOBGAN | {"training": training}), BlobClassifier())
    generator = BlobGAN.build(architecture)
    setting = EncoderTraining.of(generator, architecture, observer_of(BlobClassifier()), EncoderParams(**ENCODER))
    images = slices()[:2, None]
    assert (generator.encoder is None) == (training == "adversarial")
    if generator.encoder is not None:
        assert torch.equal(setting.encoder(images), generator.encode(images))
        assert setting.encoder is not generator.encoder
    assert setting.encoder(images).shape == (2, 16)


def test_a_generator_without_blobs_is_refused():
    with pytest.raises(ValueError, match="generator with blobs, found Linear"):
        EncoderTraining.of(torch.nn.Linear(1, 1), {}, observer_of(BlobClassifier()), EncoderParams(**ENCODER))

"""COIN's steps: the named switches, seeded and resumable training, and that it learns to remove a planted blob."""

import pytest
import torch
import yaml

from stages.common.checkpoint import Scratch
from stages.common.runtime import Runtime, RuntimeParams, generator_for
from stages.generate import adversarial, coin

TINY = {
    "channels": [8, 16], "discriminator_channels": [8, 16], "discriminator_last_block": False, "skips": 1,
    "fuse": "clamp", "upsampling": "nearest", "spectral_norm": False, "adversarial_loss": "bce",
    "discriminator_condition": "predicted", "kl": "logits", "kl_target": "own_if_healthy", "cycle_target": "input",
    "lambda_adversarial": 0.1, "lambda_classifier": 1.0, "lambda_reconstruction": 3.0, "lambda_total_variation": 0.0001,
    "total_variation_scale": 127.5, "generator_every": 2, "learning_rate": "2e-3", "schedule": "constant",
    "betas": [0.0, 0.9], "batch_size": 8, "steps": 12, "balance": "none", "ema_decay": 0.0,
}


def params(**changes):
    return coin.GeneratorParams(**{**TINY, **changes})


class BlobClassifier(torch.nn.Module):
    """Abnormal where the brightest 3 x 3 patch is bright."""

    def forward(self, images):
        return 20 * (torch.nn.functional.avg_pool2d(images, 3, 1).amax(dim=(1, 2, 3)) - 0.4)


def slices(count=32):
    images = torch.rand(count, 16, 16, generator=generator_for(1)) * 0.2 - 0.3
    for i in range(0, count, 2):
        images[i, 4:8, (i % 10):(i % 10) + 4] = 0.9
    return images


def train(tmp_path, monkeypatch, scratch_name="s", **changes):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    images, classifier = slices(), BlobClassifier()
    logits = classifier(images[:, None])
    chosen = params(**changes)
    generator, history = adversarial.train_adversarial(
        coin, chosen, classifier, images, logits, 3, Runtime(RuntimeParams(device="cpu", precision="auto", threads=1)),
        Scratch(scratch_name, chosen.model_dump()))
    return generator, history, images, classifier


def test_learns_to_remove_the_blob_and_leaves_healthy_slices_alone(tmp_path, monkeypatch):
    generator, history, images, classifier = train(tmp_path, monkeypatch, steps=300)
    with torch.no_grad():
        counterfactual = generator(images[:, None])[:, 0]
    abnormal = torch.arange(0, 32, 2)
    assert (classifier(counterfactual[abnormal][:, None]) < 0).float().mean() > 0.9
    change = (images - counterfactual).abs()
    lesion = images > 0.5
    assert change[lesion].mean() > 3 * change[~lesion].mean()
    assert history[-1]["classifier"] < history[0]["classifier"]


def test_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(adversarial, "RECORD_EVERY", 3)
    monkeypatch.setattr(adversarial, "SAVE_EVERY_SECONDS", 0.0)
    straight, straight_history, *_ = train(tmp_path, monkeypatch, "straight", ema_decay=0.5)

    steps = []
    step = coin.discriminator_step

    def dies_at_step_eight(*args):
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(coin, "discriminator_step", dies_at_step_eight)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, monkeypatch, "killed", ema_decay=0.5)
    monkeypatch.setattr(coin, "discriminator_step", step)
    torch.manual_seed(99)  # nothing may hang on the global state that the killed run left behind
    resumed, resumed_history, *_ = train(tmp_path, monkeypatch, "killed", ema_decay=0.5)
    assert resumed_history == straight_history
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_changed_parameter_starts_afresh_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Scratch("coin", {"lambda": 1}).save({"step": 5})
    assert Scratch("coin", {"lambda": 2}).load() is None
    assert "starting afresh" in capsys.readouterr().out
    assert Scratch("coin", {"lambda": 1}).load()["step"] == 5


def test_infinite_loss_stops_and_names_loss_and_step(tmp_path, monkeypatch):
    monkeypatch.setattr(adversarial, "RECORD_EVERY", 2)
    with pytest.raises(FloatingPointError, match=r"`\w+` became \w+ at step \d+"):
        train(tmp_path, monkeypatch, lambda_total_variation=1e38, total_variation_scale=1e20)


def test_generator_learns_every_nth_step_only(tmp_path, monkeypatch):
    calls = []
    step = coin.generator_step
    monkeypatch.setattr(coin, "generator_step", lambda *args: calls.append(1) or step(*args))
    train(tmp_path, monkeypatch, generator_every=5, steps=12)
    assert len(calls) == 2


def test_switches_change_exactly_what_they_name():
    logits = torch.tensor([-1.0, 2.0])
    assert coin.real_condition(params(), logits).tolist() == [0, 1]
    assert coin.real_condition(params(discriminator_condition="single"), logits).tolist() == [0, 0]
    own = torch.sigmoid(logits)
    assert coin.healthy_target(params(), logits).tolist() == pytest.approx([own[0].item(), 0.0])
    assert coin.healthy_target(params(kl_target="always_healthy"), logits).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("cycle_target", ["input", "counterfactual"])
def test_reconstruction_is_equation_4(cycle_target):
    torch.manual_seed(0)
    chosen = params(cycle_target=cycle_target, lambda_reconstruction=2.0)
    networks = coin.build_networks(chosen, BlobClassifier())
    networks.generator.eval()
    images = torch.rand(2, 1, 16, 16)
    counterfactual = networks.generator(images)
    losses = coin.generator_step(networks, chosen, images, torch.zeros(2), counterfactual)
    cycled = networks.generator(counterfactual)
    target = images if cycle_target == "input" else counterfactual
    expected = 2 * ((images - counterfactual).abs().mean() + (target - cycled).abs().mean())
    assert losses["reconstruction"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(losses) == {"adversarial", "classifier", "reconstruction", "total_variation"}


def test_zero_weight_leaves_the_term_out():
    chosen = params(lambda_adversarial=0, lambda_reconstruction=0)
    networks = coin.build_networks(chosen, BlobClassifier())
    images = torch.rand(2, 1, 16, 16)
    losses = coin.generator_step(networks, chosen, images, torch.zeros(2), networks.generator(images))
    assert set(losses) == {"classifier", "total_variation"}


def test_parameters_survive_yaml_with_scientific_notation():
    written = yaml.safe_dump({**TINY, "learning_rate": "1e-06"})
    assert coin.GeneratorParams(**yaml.safe_load(written)).learning_rate == 1e-6


def test_cosine_schedule_ends_at_zero():
    chosen = params(schedule="cosine", steps=10, learning_rate=2.0)
    assert [adversarial.learning_rate(chosen, step) for step in (0, 5, 10)] == pytest.approx([2.0, 1.0, 0.0], abs=1e-9)
    assert adversarial.learning_rate(params(learning_rate=2.0), 9) == 2.0

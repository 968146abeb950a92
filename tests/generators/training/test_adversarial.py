"""Adversarial training, whatever the generator: seeded, resumable, finite."""

import pytest
import torch

from flipside.core.checkpoint import Scratch
from flipside.generators.base import state
from flipside.generators.blobgan import BlobGAN
from flipside.generators.coin import Coin
from flipside.generators.coin_aligned import CoinAligned
from flipside.generators.cx_gan import CxGan
from flipside.generators.flip_mask import FlipMask
from flipside.generators.singla import Singla
from flipside.generators.stylegan import StyleGAN
from flipside.generators.va_gan import VaGan
from tests.generators.toys import (
    ALIGNED,
    BLOBGAN,
    COIN,
    CX_GAN,
    FLIP_MASK,
    LESION,
    SINGLA,
    STYLEGAN,
    VA_GAN,
    toy_data,
    train,
)
from tests.killed import dies_at

GENERATORS = {
    "coin": (Coin, COIN), "singla": (Singla, SINGLA | {"target": "random", "bins": 4}),
    "coin_aligned": (CoinAligned, ALIGNED),
    "blobgan": (BlobGAN, BLOBGAN), "stylegan": (StyleGAN, STYLEGAN), "va_gan": (VaGan, VA_GAN),
    "flip_mask": (FlipMask, FLIP_MASK),
    "cx_gan": (CxGan, CX_GAN | {"variant": "cascaded"}),  # with images that a pool keeps
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def params(name="coin", **changes):
    kind, values = GENERATORS[name]
    return kind.Params(**values | changes)


@pytest.mark.parametrize("name", GENERATORS)
def test_interrupted_training_ends_with_the_same_weights(name, monkeypatch):
    kind, chosen = GENERATORS[name][0], params(name, ema_decay=0.5)
    monkeypatch.setattr(state, "RECORD_EVERY", 3)
    monkeypatch.setattr(state, "SAVE_EVERY_SECONDS", 0.0)
    straight, straight_history = train(kind, chosen, "straight")

    with dies_at(8, kind, "discriminator_loss"):
        train(kind, chosen, "killed")
    torch.manual_seed(99)  # the global random numbers at which the killed run ended must not matter
    scratch = Scratch("killed", chosen.model_dump())
    scratch.save(scratch.load() | {"seconds": 1000.0})
    data = toy_data()
    resumed, resumed_history, seconds = kind(chosen, data.classifier, LESION).train(data, 3, scratch)
    assert 1000 < seconds < 2000  # those before the kill count
    assert resumed_history == straight_history
    for key, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", GENERATORS)
def test_gradients_lie_in_memory_as_their_parameters(name, monkeypatch):
    """Torch's fused Adam takes it for granted on a CPU: else it would give each weight another one's step."""
    step, stepped = torch.optim.Adam.step, []

    def check(optimizer):
        for parameter in optimizer.param_groups[0]["params"]:
            if parameter.grad is not None:
                sides = [axis for axis, size in enumerate(parameter.shape) if size > 1]
                assert [parameter.grad.stride(axis) for axis in sides] == [parameter.stride(axis) for axis in sides]
                stepped.append(len(sides))
        return step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", check)
    train(GENERATORS[name][0], params(name, steps=5))
    assert max(stepped) == 4  # convolutions


def test_changed_parameter_starts_afresh_and_says_so(capsys):
    Scratch("coin", {"lambda": 1}).save({"step": 5})
    assert Scratch("coin", {"lambda": 2}).load() is None
    assert "starting afresh" in capsys.readouterr().out
    assert Scratch("coin", {"lambda": 1}).load()["step"] == 5


def test_infinite_loss_stops_and_names_loss_and_step(monkeypatch):
    monkeypatch.setattr(state, "RECORD_EVERY", 2)
    with pytest.raises(FloatingPointError, match=r"`\w+` became \w+ at step \d+"):
        train(Coin, params(lambda_total_variation=1e38, total_variation_scale=1e20))


def test_generator_learns_every_nth_step_only(monkeypatch):
    calls = []
    losses = Coin.generator_losses
    monkeypatch.setattr(Coin, "generator_losses", lambda *args: calls.append(1) or losses(*args))
    train(Coin, params(generator_every=5, steps=12))
    assert len(calls) == 2


def test_cosine_schedule_ends_at_zero():
    chosen = params(schedule="cosine", steps=10, learning_rate=2.0)
    assert [chosen.learning_rate_at(step) for step in (0, 5, 10)] == pytest.approx([2.0, 1.0, 0.0], abs=1e-9)
    assert params(learning_rate=2.0).learning_rate_at(9) == 2.0

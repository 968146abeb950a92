"""Each loss against its closed form or a slow loop."""

import math

import pytest
import torch

from stages.generate.losses import discriminator_loss, generator_loss, kl_to_target, total_variation


def test_bce_adversarial_losses_are_cross_entropies():
    real, fake = torch.tensor([0.3, -2.0]), torch.tensor([1.5, 0.0])
    def log_sigmoid(z):
        return math.log(1 / (1 + math.exp(-z)))

    expected = 0.5 * (-sum(log_sigmoid(z) for z in real.tolist()) / 2 - sum(log_sigmoid(-z) for z in fake.tolist()) / 2)
    assert discriminator_loss(real, fake, "bce").item() == pytest.approx(expected, rel=1e-5)
    assert generator_loss(fake, "bce").item() == pytest.approx(-sum(map(log_sigmoid, fake.tolist())) / 2, rel=1e-5)


def test_hinge_and_mse_by_hand():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.5 * (0.5 + 1.0))
    assert generator_loss(fake, "hinge").item() == pytest.approx(1.0)
    assert discriminator_loss(real, fake, "mse").item() == pytest.approx(0.5 * (1.0 + 5.0))
    assert generator_loss(fake, "mse").item() == pytest.approx(8.0)


@pytest.mark.parametrize("kind", ["logits", "clamped_probability"])
def test_kl_closed_form(kind):
    logit, target = torch.tensor([0.7]), torch.tensor([0.2])
    q = torch.sigmoid(logit).item()
    expected = 0.2 * math.log(0.2 / q) + 0.8 * math.log(0.8 / (1 - q))
    assert kl_to_target(logit, target, kind).item() == pytest.approx(expected, rel=1e-4)
    assert kl_to_target(torch.logit(target), target, kind).item() == pytest.approx(0.0, abs=1e-6)


def test_kl_on_logits_has_a_gradient_where_the_clamped_probability_has_none():
    target = torch.zeros(1)
    gradients = {}
    for kind in ("logits", "clamped_probability"):
        logit = torch.tensor([30.0], requires_grad=True)
        kl_to_target(logit, target, kind).backward()
        gradients[kind] = logit.grad.item()
    assert gradients["logits"] == pytest.approx(1.0)
    assert gradients["clamped_probability"] == 0.0


def test_total_variation_equals_a_loop():
    torch.manual_seed(0)
    maps = torch.rand(2, 1, 4, 5)
    scaled = (maps * 127.5).tolist()
    rows = [(scaled[b][0][i + 1][j] - scaled[b][0][i][j]) ** 2 for b in range(2) for i in range(3) for j in range(5)]
    columns = [(scaled[b][0][i][j + 1] - scaled[b][0][i][j]) ** 2 for b in range(2) for i in range(4) for j in range(4)]
    expected = sum(rows) / len(rows) + sum(columns) / len(columns)
    assert total_variation(maps, 127.5).item() == pytest.approx(expected, rel=1e-4)


def test_total_variation_of_a_sharp_disc_on_the_authors_scale():
    """A disc of radius 20 px and depth 0.4 on [0,1] at 256 x 256 costs about 26 on the 0..255 scale."""
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    disc = ((y - 128) ** 2 + (x - 128) ** 2 <= 20**2).float() * 0.8  # depth 0.4 on [0,1] is 0.8 on [-1,1]
    assert total_variation(disc[None, None], 127.5).item() == pytest.approx(26, rel=0.05)

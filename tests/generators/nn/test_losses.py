"""Each loss against its closed form or a slow loop."""

import math

import pytest
import torch

from flipside.generators.nn.losses import (
    dilated_difference,
    discriminator_loss,
    generator_loss,
    kl_to_target,
    masked_l1,
    per_lesion,
    relativistic_loss,
    squared_gradient_norms,
    total_variation,
)


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
    expected = (sum(rows) / len(rows) + sum(columns) / len(columns)) * 20 / 256**2
    assert total_variation(maps, 127.5).item() == pytest.approx(expected, rel=1e-4)


def test_total_variation_of_a_sharp_disc_on_the_authors_scale():
    """A disc of radius 20 px and depth 0.4 on [0,1] at 256 x 256 costs about 26 on the 0..255 scale."""
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    disc = ((y - 128) ** 2 + (x - 128) ** 2 <= 20**2).float() * 0.8  # depth 0.4 on [0,1] is 0.8 on [-1,1]
    assert total_variation(disc[None, None], 127.5).item() == pytest.approx(26, rel=0.05)


def lesion_at(side, share=1.0):
    """A smooth lesion in an image (1,1,side,side) that covers `share` of what it covers elsewhere."""
    y, x = torch.meshgrid(*[(torch.arange(side) + 0.5) / side - 0.5] * 2, indexing="ij")
    return torch.exp(-(y**2 + x**2) / (2 * share * 0.08**2))[None, None]


@pytest.mark.parametrize("side", [64, 96, 512])
def test_the_same_lesion_costs_the_same_at_every_size(side):
    here, published = lesion_at(side), lesion_at(256)
    assert total_variation(here, 127.5).item() == pytest.approx(total_variation(published, 127.5).item(), rel=0.05)
    assert per_lesion(here.mean(), 0.01).item() == pytest.approx(per_lesion(published.mean(), 0.01).item(), rel=0.01)


def test_a_lesion_costs_the_same_whatever_share_of_the_image_it_covers():
    small, large = (per_lesion(lesion_at(256, share).mean(), 0.002 * share) for share in (1, 4))
    assert small.item() == pytest.approx(large.item(), rel=0.01)


def test_published_weights_hold_for_what_they_were_tuned_with():
    assert per_lesion(torch.tensor(0.3), 21 / 256**2).item() == pytest.approx(0.3)


def test_relativistic_loss_by_hand():
    """The discriminator wants real above fake, pair by pair; the generator the other way round."""
    real, fake = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(2.0))) / 2
    assert relativistic_loss(real, fake).item() == pytest.approx(expected, rel=1e-6)
    expected = (math.log1p(math.exp(1.0)) + math.log1p(math.exp(-2.0))) / 2
    assert relativistic_loss(fake, real).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_penalty_of_a_quadratic():
    """D(x) = a |x|^2 / 2 has the gradient a x: its squared norm is a^2 |x|^2, whose derivative by a is 2 a |x|^2."""
    torch.manual_seed(0)
    images = torch.rand(3, 1, 4, 5, requires_grad=True)
    a = torch.tensor(1.5, requires_grad=True)
    norms = squared_gradient_norms(a * images.square().sum(dim=(1, 2, 3)) / 2, images)
    squares = images.detach().square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(norms.detach(), 1.5**2 * squares)
    norms.mean().backward()
    torch.testing.assert_close(a.grad, (2 * 1.5 * squares).mean())


def test_gradient_penalty_of_a_coupled_quadratic_equals_autograd_image_by_image():
    torch.manual_seed(0)
    coupling = torch.randn(12, 12)
    images = torch.rand(2, 1, 3, 4, requires_grad=True)
    flat = images.flatten(1)
    norms = squared_gradient_norms(torch.einsum("bi,ij,bj->b", flat, coupling, flat), images)
    for image, norm in zip(images.detach(), norms, strict=True):
        gradient = (coupling + coupling.T) @ image.flatten()
        assert norm.item() == pytest.approx(gradient.square().sum().item(), rel=1e-4)


def test_masked_l1_equals_a_loop_over_images_and_masks():
    torch.manual_seed(0)
    images, others = torch.rand(2, 1, 3, 4), torch.rand(2, 1, 3, 4)
    organ = torch.rand(2, 1, 3, 4) > 0.6
    expected = 0.0
    for b in range(2):
        for inside in (True, False):
            values = [abs(images[b, 0, i, j] - others[b, 0, i, j]).item() for i in range(3) for j in range(4)
                      if organ[b, 0, i, j] == inside]
            expected += sum(values) / len(values) / 2
    assert masked_l1(images, others, organ).item() == pytest.approx(expected, rel=1e-5)


def test_masked_l1_weighs_a_small_organ_like_all_the_rest_and_takes_none():
    images, others, organ = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    organ[..., 0, 0] = 1
    others[..., 0, 0] = 0.5  # the organ's only pixel
    assert masked_l1(images, others, organ > 0).item() == pytest.approx(0.5)
    assert masked_l1(images, others, organ > 1).item() == pytest.approx(0.005)  # no organ: the mean over the slice


def test_dilated_difference_equals_a_loop():
    torch.manual_seed(0)
    images, others = torch.rand(2, 1, 6, 7) * 2 - 1, torch.rand(2, 1, 6, 7) * 2 - 1
    difference = (images - others).abs() / 2
    expected = sum(difference[b, 0, i : i + 3, j : j + 3].max().item()
                   for b in range(2) for i in range(4) for j in range(5)) / (2 * 6 * 7)
    assert dilated_difference(images, others, 3).item() == pytest.approx(expected, rel=1e-5)


def test_dilated_difference_punishes_scattered_changes():
    images, together, scattered = (torch.zeros(1, 1, 16, 16) for _ in range(3))
    together[..., 7:9, 7:9] = 1
    scattered[..., 4:12:6, 4:12:6] = 1  # four pixels too
    assert together.sum() == scattered.sum()
    assert dilated_difference(images, scattered, 3) > 2 * dilated_difference(images, together, 3)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_repeated_channel_weighs_as_much_as_a_single_one(channels):
    torch.manual_seed(0)
    images, others = torch.rand(2, 3, 1, 8, 8) * 2 - 1
    organ = torch.rand(3, 1, 8, 8) > 0.6
    more, others_more = (each.expand(-1, channels, -1, -1) for each in (images, others))
    for loss in (lambda x, y: total_variation((x - y).abs(), 127.5), lambda x, y: masked_l1(x, y, organ),
                 lambda x, y: dilated_difference(x, y, 3)):
        assert loss(more, others_more).item() == pytest.approx(loss(images, others).item(), rel=1e-5)

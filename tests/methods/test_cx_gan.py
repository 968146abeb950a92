"""What CX-GAN's method hands on: the map, the counterfactual instance, and where the way back ends."""

import torch

from flipside.artifacts.explanations import CYCLE_L1, SIGNED_MAP
from flipside.methods.cx_gan import CxGan, CxGanParams

NEEDS = "models/generators/cx_gan"


def test_map_instance_and_way_back_are_the_generators(prepared_needs, context, planted):
    prepared_needs(NEEDS)
    images, _ = planted
    method = CxGan(CxGanParams(needs=NEEDS, attribution="map"), context)
    batch = method(images, torch.arange(len(images)), torch.ones_like(images[:, 0], dtype=torch.uint8))
    generator = method.generator
    with torch.no_grad():
        healthy = generator.healthy(images)
        torch.testing.assert_close(batch.counterfactual, healthy.clamp(-1, 1))
        added = torch.tanh(generator.back(batch.counterfactual))  # F(G(x)) = -M
    torch.testing.assert_close(batch.attribution, added.abs()[:, 0] / 2)
    torch.testing.assert_close(batch.extras[SIGNED_MAP], -added)  # what to add to x, as x_cf - x
    back = (batch.counterfactual + added).clamp(-1, 1)
    torch.testing.assert_close(batch.extras[CYCLE_L1], (back - images).abs().mean(dim=(1, 2, 3)) / 2)
    assert batch.extras[CYCLE_L1].shape == (len(images),)


def test_attribution_may_be_the_change_to_the_instance(prepared_needs, context, planted):
    prepared_needs(NEEDS)
    images, _ = planted
    method = CxGan(CxGanParams(needs=NEEDS, attribution="instance"), context)
    batch = method(images, torch.arange(len(images)), torch.ones_like(images[:, 0], dtype=torch.uint8))
    torch.testing.assert_close(batch.attribution, (batch.counterfactual - images).abs()[:, 0] / 2)

"""Augmentation: what each transform does, that inputs stay whole, and that air (-1) moves in from outside."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from flipside.classifiers.augmentation import AnyTransform, augment
from flipside.core.runtime import generator_for

BLOCKS = {
    "horizontal_flip": {}, "vertical_flip": {}, "affine": {"shift": 0.1, "scale": 0.1, "rotate_degrees": 10},
    "crop": {"margin": 0.25}, "noise": {"deviation": 0.1}, "blur": {"sigma_px": 1.5}, "gamma": {"strength": 0.3},
    "tanh": {}, "black_holes": {"discs": [3, 6], "radius": [0.05, 0.2], "depth": 2.0, "margin": 0.2},
}


def transform(name, probability=1.0, **changes):
    return TypeAdapter(AnyTransform).validate_python(
        {"name": name, "probability": probability, **BLOCKS[name], **changes})


@pytest.mark.parametrize("name", BLOCKS)
def test_every_transform_keeps_shape_range_and_input_and_is_seeded(name):
    images = torch.rand(4, 1, 24, 24, generator=generator_for(0)) * 2 - 1
    before = images.clone()
    first = augment(images, [transform(name)], generator_for(5))
    again = augment(images, [transform(name)], generator_for(5))
    assert first.shape == images.shape
    assert first.min() >= -1 - 1e-5 and first.max() <= 1 + 1e-5
    assert torch.equal(images, before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, images, atol=1e-3)


@pytest.mark.parametrize("name", BLOCKS)
def test_probability_zero_changes_nothing(name):
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    assert torch.equal(augment(images, [transform(name, 0.0)], generator_for(1)), images)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("channels", [3, 4])
def test_all_channels_are_changed_alike_but_for_noise(name, channels):
    grey = torch.rand(5, 1, 24, 24, generator=generator_for(0)) * 2 - 1
    images = grey.expand(-1, channels, -1, -1).contiguous()
    found = transform(name)(images, generator_for(5))
    assert found.shape == images.shape
    assert not torch.equal(found, images)
    if name == "noise":
        assert (found[:, 0] - found[:, 1]).abs().amax(dim=(1, 2)).min() > 1e-3
        strength = (found - images).std(dim=(2, 3))  # (B,C): one deviation per image
        torch.testing.assert_close(strength, strength[:, :1].expand_as(strength), rtol=0.2, atol=2e-3)
        return
    torch.testing.assert_close(found, transform(name)(grey, generator_for(5)).expand_as(found))


def test_flips_are_flips():
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(transform("horizontal_flip")(images, generator_for(0)), images.flip(3))
    assert torch.equal(transform("vertical_flip")(images, generator_for(0)), images.flip(2))


def test_a_crop_is_a_part_of_the_mirrored_image_and_each_image_has_its_own():
    images = torch.rand(200, 1, 8, 12, generator=generator_for(0))
    moved = transform("crop", margin=0.25)(images, generator_for(1))
    mirrored = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)), mode="reflect")
    places = {(top, left): mirrored[:, :, top:top + 8, left:left + 12] for top in range(5) for left in range(7)}
    found = [place for each in range(200)
             for place, part in places.items() if np.array_equal(part[each], moved[each].numpy())]
    assert len(found) == 200  # every image is one of the parts
    assert set(found) == set(places)  # and every part comes up


def test_affine_fills_with_air():
    images = torch.full((1, 1, 16, 16), 0.5)
    moved = transform("affine", shift=0.0, scale=0.0, rotate_degrees=45.0)(images, generator_for(3))
    assert moved[0, 0, 8, 8] == pytest.approx(0.5, abs=1e-5)
    assert moved.min() == pytest.approx(-1.0, abs=1e-5)


def test_identity_affine_is_the_image():
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    same = transform("affine", shift=0.0, scale=0.0, rotate_degrees=0.0)(images, generator_for(0))
    assert torch.allclose(same, images, atol=1e-5)


def test_blur_keeps_the_mean_of_a_constant_image():
    images = torch.full((2, 1, 16, 16), 0.3)
    assert torch.allclose(transform("blur")(images, generator_for(0)), images, atol=1e-5)


def test_tanh_is_tanh():
    images = torch.rand(2, 1, 8, 8) * 2 - 1
    assert torch.equal(transform("tanh")(images, generator_for(0)), torch.tanh(images))


def test_black_holes_are_discs_of_one_darkening_each_away_from_the_edges():
    images = torch.full((40, 1, 64, 64), 0.9)
    holes = transform("black_holes", discs=[1, 1], radius=[0.05, 0.2], depth=1.0)(images, generator_for(0))[:, 0]
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    radii = set()
    for image in holes:
        inside = image < 0.9 - 1e-6
        assert len(image[inside].unique()) == 1 and image.min() >= -0.1 - 1e-6
        row, column = rows[inside].float().mean(), columns[inside].float().mean()
        assert 0.2 * 64 - 1 <= row <= 0.8 * 64 and 0.2 * 64 - 1 <= column <= 0.8 * 64
        radius = int((rows[inside] - row).abs().max())
        radii.add(radius)
        assert torch.equal(inside, (rows - row) ** 2 + (columns - column) ** 2 <= radius**2)
    assert min(radii) >= 3 and max(radii) <= 12 and len(radii) > 4


def test_overlapping_black_holes_add_up():
    images = torch.full((1, 1, 32, 32), 1.0)
    one = transform("black_holes", discs=[1, 1], radius=[0.4, 0.5], depth=0.3)(images, generator_for(2))
    many = transform("black_holes", discs=[8, 8], radius=[0.4, 0.5], depth=0.3)(images, generator_for(2))
    assert 0.7 <= one.min() < 1 and many.min() < 0.5


def test_the_number_of_black_holes_is_each_images_own():
    images = torch.full((64, 1, 64, 64), 0.0)
    holes = transform("black_holes", discs=[0, 2], radius=[0.0, 0.01], depth=1.0)(images, generator_for(4))
    pixels = (holes < 0).sum(dim=(1, 2, 3))  # radius 0: a pixel each
    assert set(pixels.tolist()) == {0, 1, 2}

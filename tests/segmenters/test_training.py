"""A segmenter: its loss by hand, labels that move with their pixels, transplants, rounds, and a resumed training."""

import dataclasses

import pytest
import torch

from flipside.core.checkpoint import Scratch
from flipside.core.runtime import generator_for
from flipside.generators.base import state
from flipside.generators.nn.unet import UNet
from flipside.segmenters import training
from flipside.segmenters.labels import Labels, TransplantParams
from flipside.segmenters.networks import lesion_probability
from tests.generators.toys import COUNT, slices, toy_data
from tests.killed import dies_at
from tests.segmenters.test_labels import TRANSPLANTS

SEGMENTER = {"channels": [8, 16], "dice_weight": 0.5, "learning_rate": 5e-3, "batch_size": 8, "steps": 12,
             "ema_decay": 0.5, "augmentation": [], "seed_offset": 0}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def params(**changes):
    return training.SegmenterParams(**SEGMENTER | changes)


def transplants(**changes):
    return TransplantParams(**TRANSPLANTS | changes)


def true_labels():
    lesion = slices() > 0.5
    change = torch.where(lesion, 1.2, 0.0)[:, None].half()
    return Labels(lesion, torch.zeros_like(lesion), torch.ones(COUNT, dtype=torch.bool), change)


def train(chosen, scratch="s", **more):
    torch.manual_seed(0)
    return training.train_segmenter(UNet(1, chosen.channels, 1), toy_data(), true_labels(), chosen, 3,
                                    Scratch(scratch, chosen.model_dump()), **more)


def test_loss_by_hand_and_ignored_pixels_do_not_count():
    logits, lesion = torch.tensor([0.5, -1.0, 3.0]).view(1, 1, 1, 3), torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3)
    weight = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3)
    p = torch.sigmoid(logits).flatten()
    terms = training.segmentation_terms(logits, lesion, weight, 0.5)
    assert float(terms["cross_entropy"]) == pytest.approx(float(-(p[0].log() + (1 - p[1]).log()) / 2))
    assert float(terms["dice"]) == pytest.approx(0.5 * float(1 - (2 * p[0] + 1) / (p[0] + p[1] + 1 + 1)))
    assert set(training.segmentation_terms(logits, lesion, weight, 0.0)) == {"cross_entropy"}


def test_half_of_a_batch_is_abnormal_and_slices_that_do_not_teach_are_not_shown():
    labels = true_labels()
    labels.teaches[:] = False
    labels.teaches[4:8] = True
    images, lesion, weight = training.draw_batch(toy_data(), labels, params(batch_size=40), None, generator_for(1))
    assert lesion.flatten(1).any(dim=1).sum() == 20 and (weight == 1).all()
    shown = {int((slices()[:, None] == image).flatten(1).all(dim=1).nonzero()) for image in images}
    assert shown == {4, 5, 6, 7}


def test_labels_move_with_their_pixels_and_brightness_leaves_them():
    labels = true_labels()
    labels = dataclasses.replace(labels, ignored=labels.lesion.roll(2, dims=1))
    augmentation = [{"name": "horizontal_flip", "probability": 0.5}, {"name": "vertical_flip", "probability": 0.5},
                    {"name": "affine", "probability": 1.0, "shift": 0.1, "scale": 0.1, "rotate_degrees": 20},
                    {"name": "gamma", "probability": 1.0, "strength": 0.3}]
    images, lesion, weight = training.draw_batch(toy_data(), labels, params(batch_size=32, augmentation=augmentation),
                                                 None, generator_for(1))
    abnormal = lesion[:16]
    assert (lesion[16:] == 0).all() and not torch.equal(abnormal[0], abnormal[1])
    bright, sure = images[:16] > 0.4, (abnormal < 0.05) | (abnormal > 0.95)
    assert torch.equal(bright[sure], abnormal[sure] > 0.5)
    assert 0 <= weight.min() < 0.1 and weight.max() == 1


def test_transplants_move_a_lesion_and_its_mask_into_healthy_slices():
    data, chosen = toy_data(), params(batch_size=32)
    some = transplants(share=0.5, shift=0.1, scale=0.2, rotate_degrees=90.0)
    images, lesion, _ = training.draw_batch(data, true_labels(), chosen, some, generator_for(1))
    has = lesion.flatten(1).any(dim=1)
    assert has[16:24].all() and not has[24:].any()
    assert (images[16:24][lesion[16:24] > 0.5] > 0.4).float().mean() > 0.9
    assert (images[24:] < 0).all()
    none = training.draw_batch(data, true_labels(), chosen, transplants(), generator_for(1))[1]
    assert not none[16:].any()


def test_contrast_and_sign_of_a_transplant():
    healthy, change = torch.full((2, 1, 4, 4), -0.5), torch.zeros(2, 1, 4, 4)
    change[:, :, 1:3, 1:3] = 0.8
    mask = (change > 0).float()
    for dark, factor in ((0.0, 0.5), (1.0, -0.5)):
        made, lesion = training.transplanted(healthy, change, mask, transplants(contrast=[0.5, 0.5], dark=dark),
                                             generator_for(1))
        torch.testing.assert_close(made, healthy + factor * change)
        assert torch.equal(lesion, mask)


@pytest.mark.parametrize("killed_at", [8, 20])  # in the first round and in the second
def test_interrupted_training_ends_with_the_same_weights(killed_at, monkeypatch):
    monkeypatch.setattr(state, "RECORD_EVERY", 3)
    monkeypatch.setattr(state, "SAVE_EVERY_SECONDS", 0.0)
    data, chosen = toy_data(), params()

    def relabel(student):
        found = lesion_probability(student, slices()[:, None], data.runtime)[:, 0] > 0.3
        return dataclasses.replace(true_labels(), lesion=found)

    straight = train(chosen, "straight", rounds=2, relabel=relabel, transplants=transplants(share=0.5))
    with dies_at(killed_at, training, "update"):
        train(chosen, "killed", rounds=2, relabel=relabel, transplants=transplants(share=0.5))
    resumed = train(chosen, "killed", rounds=2, relabel=relabel, transplants=transplants(share=0.5))
    assert resumed.history == straight.history and straight.history[-1]["step"] == 24
    for key, tensor in straight.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[key]), key


def test_a_later_round_learns_the_labels_that_the_student_gave():
    seen = []

    def nothing(student):
        seen.append({key: value.clone() for key, value in student.state_dict().items()})
        return dataclasses.replace(true_labels(), lesion=torch.zeros_like(true_labels().lesion), change=None)

    chosen = params(steps=60)
    first = train(chosen, "first").network
    second = train(chosen, "second", rounds=2, relabel=nothing).network
    assert len(seen) == 1 and all(torch.equal(value, seen[0][key]) for key, value in first.state_dict().items())
    images, runtime = slices()[::2, None], toy_data().runtime
    with torch.no_grad():
        first, second = (lesion_probability(each, images, runtime)[images > 0.5].mean() for each in (first, second))
    assert first > 0.8 and second < 0.5


def test_it_learns_the_lesions():
    network = train(params(steps=150)).network
    images = slices()[:, None]
    with torch.no_grad():
        found = lesion_probability(network, images, toy_data().runtime)
    assert not found.requires_grad and not any(weight.requires_grad for weight in network.parameters())
    assert torch.equal(found >= 0.5, images > 0.5)

"""The controls that flip a classifier by destroying the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from flipside.core.paths import SLICES
from flipside.core.store import SliceStore, write_store
from flipside.methods.base.destruction import DestructionParams
from flipside.methods.blur import Blur, BlurParams
from flipside.methods.grey import Grey, GreyParams
from flipside.methods.mean_healthy import MeanHealthy


def made(method, images):
    return method(images, torch.arange(len(images)), torch.ones_like(images[:, 0], dtype=torch.uint8)).counterfactual


@pytest.mark.parametrize(("shape", "sigma"), [((2, 1, 64, 64), 3 / 64), ((1, 3, 48, 80), 0.05), ((1, 1, 20, 20), 0.2)])
def test_blur_is_a_gaussian_of_a_share_of_each_side(context, shape, sigma):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = made(Blur(BlurParams(needs=SLICES, sigma=sigma), context), images)
    sides = (0, 0, sigma * shape[2], sigma * shape[3])
    np.testing.assert_allclose(found, gaussian_filter(images.double().numpy(), sides, mode="nearest"), atol=2e-4)


@pytest.mark.parametrize(("baseline", "value"), [("mid_grey", 0.0), ("air", -1.0)])
def test_grey_is_one_value(context, planted, baseline, value):
    assert made(Grey(GreyParams(needs=SLICES, baseline=baseline), context), planted[0]).eq(value).all()


def test_mean_healthy_is_the_mean_of_the_training_slices_labelled_healthy(context, planted, prepared_needs):
    prepared_needs(SLICES)
    store = SliceStore.open(SLICES)
    healthy = store.images[store.rows("train", label=0)].astype(np.float64).mean(axis=0)
    found = made(MeanHealthy(DestructionParams(needs=SLICES), context), planted[0])
    np.testing.assert_allclose(found, np.broadcast_to(healthy, found.shape), atol=1e-6)


def test_without_a_healthy_training_slice_there_is_no_mean(context, prepared_needs, tmp_path, monkeypatch):
    prepared_needs(SLICES)
    store = SliceStore.open(SLICES)
    monkeypatch.chdir(tmp_path)
    write_store(SLICES, store.images, store.organ, store.index.assign(split="test"))
    with pytest.raises(ValueError, match="no training slice labelled healthy"):
        MeanHealthy(DestructionParams(needs=SLICES), context)


def test_all_three_flip_the_classifier_whatever_the_slice_shows(context, planted, prepared_needs):
    prepared_needs(SLICES)
    methods = (Blur(BlurParams(needs=SLICES, sigma=0.3), context),
               Grey(GreyParams(needs=SLICES, baseline="mid_grey"), context),
               MeanHealthy(DestructionParams(needs=SLICES), context))
    assert (context.classifier(planted[0]) > 0).all()
    for method in methods:
        assert (context.classifier(made(method, planted[0])) < 0).all()

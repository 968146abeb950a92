"""The networks of profiles of large images at their real sizes, without the arithmetic: shapes alone.

What every adversarial generator makes of a batch, and its discriminator of that, on fake tensors, which have a shape
and no values. What shapes don't show, `make profiles-start` does, in minutes and gigabytes.
"""

import dataclasses
import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.image_size import image_shape
from flipside.core.runtime import Runtime, RuntimeParams, generator_for
from flipside.generators.base.data import TrainingSlices
from flipside.generators.base.loading import find_generator
from tests.test_profiles_start import LARGE_SIDE, PROFILES, REFUSED, channels_of, parameters

COUNT = 4  # slices, of which two are abnormal
RUNTIME = RuntimeParams(device="cpu", precision="float32", threads=1)


def cases():
    """(profile, generator) of which the parameters or the image size are new."""
    seen = set()
    for profile in PROFILES:
        params = parameters(profile)
        size = image_shape(params["image_size"])
        for name, block in params["generators"].items() if max(size) >= LARGE_SIDE else ():
            # Of the classifier only its features' number could matter, of the channels nothing but the first layers.
            seen_by_it = params["classifiers"]["classifier"]["architecture"] if name == "coin_aligned" else None
            what = json.dumps([name, block, size, seen_by_it])
            if what not in seen and name != "impact":  # whose training has no parts that could be called apart
                seen.add(what)
                yield profile, name


@pytest.mark.parametrize(("profile", "name"), cases())
def test_a_step_fits_the_images(profile, name, monkeypatch):
    params = parameters(profile)
    architecture, channels = params["classifiers"]["classifier"]["architecture"], channels_of(params)
    kind = find_generator(name)
    values = {"replay": 0} if name == "cx_gan" else {}  # its pool looks at values
    block = kind.Params(**params["generators"][name] | values)
    images = torch.rand(COUNT, channels, *image_shape(params["image_size"])) * 2 - 1
    fake = FakeTensorMode()
    with fake:
        classifier = build_classifier(architecture, 0, pretrained=False, image_channels=channels)
        generator = kind(block, classifier.eval().requires_grad_(False), 0.005)
    data = TrainingSlices(images[:, 0] if channels == 1 else images, torch.ones_like(images[:, 0], dtype=torch.uint8),
                          torch.arange(COUNT) % 2 == 1, torch.zeros(COUNT), classifier, Runtime(RUNTIME))
    vars(data).update(logits=torch.linspace(-1, 1, COUNT), features=torch.rand(COUNT, classifier.feature_count))
    if name in REFUSED.get(profile, ()):
        with pytest.raises(ValueError, match="pixels, the slices have"):
            generator.draw(data, generator_for(0))
        return
    drawn = generator.draw(data, generator_for(0))
    batch = dataclasses.replace(drawn, step=1, **{key: fake.from_tensor(value) for key, value in vars(drawn).items()
                                          if isinstance(value, torch.Tensor)})
    with fake:
        made = generator.generate(batch)
        assert made.shape[-2:] == images.shape[-2:]
        generator.discriminator_loss(batch, made)

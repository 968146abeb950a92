"""Classifiers: one channel, one logit, features/head consistent, weights from torch hub's cache or a clear refusal."""

import copy

import pytest
import torch
import torchvision

from flipside.classifiers.networks.backbones import ARCHITECTURES, build_classifier, imagenet_weights, load_classifier
from flipside.core.checkpoint import CheckpointError, save_model
from flipside.core.runtime import Runtime, RuntimeParams

ALL = ["small_resnet", *ARCHITECTURES]


@pytest.mark.parametrize("architecture", ALL)
def test_logit_is_the_head_of_the_features(architecture):
    classifier = build_classifier(architecture, width=8, pretrained=False).eval()
    images = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        features = classifier.features(images)
        logits = classifier(images)
        assert logits.shape == (2,)
        assert torch.allclose(classifier.head(features), logits)
        by_hand = features.mean((2, 3)) @ classifier.classifying_weights() + classifier.linear.bias
    assert torch.allclose(by_hand, logits, atol=1e-5)


def test_resnet18_has_the_published_size():
    classifier = build_classifier("resnet18", width=0, pretrained=False)
    assert sum(p.numel() for p in classifier.parameters()) == pytest.approx(11.2e6, rel=0.01)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_missing_imagenet_weights_name_the_file_and_its_page(architecture, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"checkpoints.*\.pth not found|not found at .*checkpoints.*https://"):
        build_classifier(architecture, width=0, pretrained=True)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_made_up_weights_are_loaded_and_the_stem_sums_rgb(architecture, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(1)
    network = torchvision.models.get_model(architecture, weights=None)
    file = tmp_path / "checkpoints" / torchvision.models.get_model_weights(architecture).DEFAULT.url.split("/")[-1]
    file.parent.mkdir()
    torch.save(network.state_dict(), file)
    classifier = build_classifier(architecture, width=0, pretrained=True)
    first_rgb = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    first = next(m for m in classifier.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.weight.shape[1] == 1
    assert torch.allclose(first.weight, first_rgb.weight.sum(1, keepdim=True))
    deep_rgb = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    deep = [m for m in classifier.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    assert torch.equal(deep.weight, deep_rgb.weight)


def test_old_densenet_names_are_understood(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = torchvision.models.get_model("densenet121", weights=None)
    old = {name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
           for name, value in network.state_dict().items()}
    file = tmp_path / "checkpoints" / torchvision.models.get_model_weights("densenet121").DEFAULT.url.split("/")[-1]
    file.parent.mkdir()
    torch.save(old, file)
    assert set(imagenet_weights("densenet121")) == set(network.state_dict())


def test_small_net_has_no_imagenet_weights():
    with pytest.raises(ValueError, match="pretrained: false"):
        build_classifier("small_resnet", width=8, pretrained=True)


def test_saved_classifier_loads_frozen_and_damage_is_refused(tmp_path):
    runtime = Runtime(RuntimeParams(device="cpu", precision="auto", threads=1))
    classifier = build_classifier("small_resnet", width=8, pretrained=False).eval()
    folder = tmp_path / "classifier"
    save_model(folder, classifier, {"architecture": {"architecture": "small_resnet", "width": 8, "image_channels": 1}})
    loaded = load_classifier(folder, runtime, 1)
    images = torch.rand(2, 1, 32, 32)
    assert torch.allclose(loaded(images), classifier(images), atol=1e-5)
    assert not any(p.requires_grad for p in loaded.parameters()) and not loaded.training
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".json"}
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_classifier(folder, runtime, 1)
    with pytest.raises(CheckpointError, match="not found"):
        load_classifier(tmp_path / "nowhere", runtime, 1)


@pytest.mark.parametrize("width", [8, 16, 24])
def test_small_net_trains_in_the_runtime_s_memory_format(width):
    """torch 2.14's strided 1x1 convolution crashed in channels_last. Gradients agree with the plain format but for a
    few ReLUs that rounding flips."""
    runtime = Runtime(RuntimeParams(device="cpu", precision="auto", threads=1))
    torch.manual_seed(0)
    plain = build_classifier("small_resnet", width, pretrained=False)
    placed = runtime.place(copy.deepcopy(plain))
    images = torch.rand(16, 1, 32, 32)
    for classifier in (plain, placed):
        classifier(images).square().sum().backward()
    for one, other in zip(plain.parameters(), placed.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=0, atol=0.05 * one.grad.abs().max().item())


def test_small_net_s_maps_lie_over_what_they_show():
    """A blob in the middle of the image lights the middle of the maps: halving the size shifts nothing.

    Random kernels lean somewhere, each net elsewhere: the mean over nets is central (strides would put it at 3.95).
    """
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    blob = torch.exp(-((y - 31.5) ** 2 + (x - 31.5) ** 2) / 50)[None, None]
    centres = []
    for seed in range(30):
        torch.manual_seed(seed)
        classifier = build_classifier("small_resnet", width=8, pretrained=False).eval()
        with torch.no_grad():
            change = (classifier.features(blob) - classifier.features(torch.zeros_like(blob))).abs().sum(1)[0]  # (8,8)
        centres += [(change.sum(axis) @ torch.arange(8.0) / change.sum()).item() for axis in (0, 1)]
    assert sum(centres) / len(centres) == pytest.approx(3.5, abs=0.1)

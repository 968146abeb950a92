"""A folded classifier answers as the one that it was made of."""

import copy

import pytest
import torch
from torch import nn

from flipside.classifiers.networks.backbones import ARCHITECTURES, build_classifier
from flipside.methods.base.folding import folded


def norms(module):
    return sum(isinstance(each, nn.BatchNorm2d) for each in module.modules())


@pytest.mark.parametrize("architecture", ["small_resnet", *ARCHITECTURES])
@torch.no_grad()
def test_logits_stay_and_batch_norms_go(architecture):
    torch.manual_seed(0)
    classifier = build_classifier(architecture, width=8, pretrained=False).eval()
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.2, 0.2)
    before = copy.deepcopy(classifier.state_dict())
    faster, images = folded(classifier), torch.rand(3, 1, 64, 64) * 2 - 1
    torch.testing.assert_close(faster(images), classifier(images), rtol=1e-3, atol=1e-4)
    assert norms(faster) < norms(classifier) / 1.9  # of a DenseNet only those that follow a convolution
    assert faster.feature_count == classifier.feature_count
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    with pytest.raises(ValueError, match="trained on slices with 1 channel"):
        faster(images.repeat(1, 3, 1, 1))


def test_a_classifier_in_training_is_not_folded():
    classifier = build_classifier("small_resnet", width=8, pretrained=False)
    assert folded(classifier) is classifier

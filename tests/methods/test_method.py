"""The contract's own parts: scaling, differences, masked images, methods found by name."""

from __future__ import annotations

import re
from pathlib import Path

import pydantic
import pytest
import torch

from flipside import methods
from flipside.core.plugins import PluginError
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.maps import MapParams, masked_probabilities, min_max_scale, upsample
from flipside.methods.base.method import find_method


def test_each_map_is_scaled_by_its_own_range():
    maps = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[-4.0, -2.0], [0.0, -3.0]]])
    expected = torch.tensor([[[0.0, 0.5], [0.25, 1.0]], [[0.0, 0.5], [1.0, 0.25]]])
    torch.testing.assert_close(min_max_scale(maps), expected)


def test_a_constant_map_says_nothing():
    assert torch.equal(min_max_scale(torch.full((2, 3, 3), 0.7)), torch.zeros(2, 3, 3))


def test_nan_is_not_hidden_by_the_scaling():
    maps = torch.ones(1, 2, 2)
    maps[0, 0, 0] = float("nan")
    assert min_max_scale(maps).isnan().any()


def test_counterfactual_difference_spans_one_from_black_to_white():
    images = torch.tensor([-1.0, 0.0, 0.5]).view(3, 1, 1, 1)
    counterfactual = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1)
    batch = ExplanationBatch.from_counterfactual(images, counterfactual)
    torch.testing.assert_close(batch.attribution.flatten(), torch.tensor([1.0, 0.0, 0.25]))
    assert torch.equal(batch.counterfactual, counterfactual)


def test_upsampling_keeps_the_place():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1.0
    large = upsample(maps, torch.zeros(1, 1, 16, 16))[0]
    assert large.shape == (16, 16)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    centre = (large * rows).sum() / large.sum(), (large * columns).sum() / large.sum()
    assert centre == (pytest.approx(5.5), pytest.approx(9.5))  # the middle of cell (1,2)


@pytest.mark.parametrize("baseline", [0.0, -1.0])
def test_masks_keep_pixels_or_turn_them_into_the_baseline(baseline, runtime):
    class Mean(torch.nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))

    image = torch.linspace(-1, 1, 9).view(1, 3, 3)
    masks = torch.stack([torch.ones(3, 3), torch.zeros(3, 3), torch.full((3, 3), 0.5)])
    kept = image.clone()
    answers = masked_probabilities(Mean(), runtime, image, masks, baseline)
    expected = torch.sigmoid(torch.tensor([0.0, baseline, baseline / 2]))
    torch.testing.assert_close(answers, expected)
    assert torch.equal(image, kept)


def test_a_method_is_the_class_of_its_file():
    assert find_method("layer_cam").__name__ == "LayerCAM" and find_method("random").__name__ == "RandomMap"


def test_unknown_method_is_named_with_those_there_are():
    with pytest.raises(PluginError, match=r"flipside/methods/crystal_ball\.py not found; known are: .*cam.*rise"):
        find_method("crystal_ball")


def test_a_folder_beside_the_methods_is_no_method():
    with pytest.raises(PluginError, match="must define one concrete subclass of Method, it has none"):
        find_method("latent")


def test_map_methods_read_the_explained_classifier_only():
    with pytest.raises(pydantic.ValidationError):
        MapParams(needs="models/classifiers/judge")


def test_each_file_beside_the_folders_is_a_method_and_imports_no_other():
    folder = Path(methods.__file__).parent
    names = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    for name in names:
        assert find_method(name).__module__ == f"flipside.methods.{name}"
        imported = re.findall(r"flipside\.methods(?:\.| import )(\w+)", (folder / f"{name}.py").read_text())
        assert imported and not names & set(imported), name

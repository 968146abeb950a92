"""Every file of flipside/generators/ is a generator: one class, found by the file's name, loaded from its folder."""

from pathlib import Path

import pytest
import torch
import yaml

from flipside import generators
from flipside.core.checkpoint import save_model
from flipside.core.plugins import PluginError
from flipside.core.runtime import Runtime, RuntimeParams
from flipside.generators.base.generator import TrainedGenerator
from flipside.generators.base.loading import find_generator, load_generator
from tests.generators.toys import COIN, BlobClassifier, slices

FILES = sorted(file.stem for file in Path(generators.__file__).parent.glob("*.py") if file.stem != "__init__")
PARAMS = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_a_generator(name):
    kind = find_generator(name)
    assert issubclass(kind, TrainedGenerator) and kind.__module__ == f"flipside.generators.{name}"
    if name in PARAMS["generators"]:
        kind.Params.model_validate(PARAMS["generators"][name])


@pytest.mark.parametrize("name", FILES)
def test_every_parameter_is_described(name):
    lacking = [key for key, field in find_generator(name).Params.model_fields.items() if not field.description]
    assert not lacking


def test_an_unknown_generator_is_refused_with_those_that_there_are():
    with pytest.raises(PluginError, match=r"flipside/generators/nothing\.py not found; known are: blobgan, .*va_gan"):
        find_generator("nothing")


def test_what_was_saved_is_loaded_frozen(tmp_path):
    kind = find_generator("coin")
    architecture = kind.architecture_of(kind.Params(**COIN), BlobClassifier())
    network = kind.build(architecture).eval()
    save_model(tmp_path / "coin", network, {"architecture": architecture})
    loaded = load_generator(tmp_path / "coin", Runtime(RuntimeParams(device="cpu", threads=1)))
    images = slices()[:2, None]
    torch.testing.assert_close(loaded(images), network(images).detach())
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())

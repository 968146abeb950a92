"""explain and judge_counterfactuals on a small store: what they write, what they refuse; they never need the truth."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import flipside.generators
import flipside.methods
from flipside.artifacts.explanations import ABNORMAL, CYCLE_L1, STEPS, Explanations, write_explanations
from flipside.core.files import read_json, write_json
from flipside.core.params import ParamsError, check_all
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.methods.base import explain_slices
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.maps import MapMethod, MapParams
from flipside.methods.base.method import Method
from stages import explain, judge_counterfactuals, train_generator

ROOT = Path(__file__).parents[2]
PARAMS_FILE = ROOT / "params.yaml"
PARAMS = {
    "seed": 3, "lesion_fraction": 0.005,
    "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
    "explain": {"batch_size": 4, "splits": ["val", "test"]}, "sanity": {"slices": 2, "draws": 1, "threshold": 0.8},
    "methods": {
        "gradient": {"needs": "models/classifiers/classifier"},
        "random": {"needs": "models/classifiers/classifier"},
    },
}
SPLITS = ["train", "val", "test", "test", "train", "test", "val", "test", "test"]


@pytest.fixture
def images(planted_nine):
    return planted_nine[:, 0].numpy().astype(np.float16)


@pytest.fixture
def folder(tmp_path, monkeypatch, images, classifier):
    """A root with params.yaml and data/slices (nine slices, two of them for training); no truth, no models."""
    index = pd.DataFrame({column: [0] * len(SPLITS) for column in INDEX_COLUMNS})
    index = index.assign(slice_id=[f"slice_{n}" for n in range(len(SPLITS))], split=SPLITS)
    monkeypatch.chdir(tmp_path)
    write_store("data/slices", images, np.ones(images.shape, np.uint8), index)
    write_params(PARAMS)
    for module in (explain_slices, judge_counterfactuals):
        monkeypatch.setattr(module, "load_classifier", lambda path, runtime, channels: classifier)
    return tmp_path


def write_params(params):
    with open("params.yaml", "w") as file:
        yaml.safe_dump(params, file)


def run(stage, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    stage.main()


def give_method(monkeypatch, method_class):
    """Whatever method is asked for, it is this one."""
    for module in (explain, explain_slices):
        monkeypatch.setattr(module, "find_method", lambda name: method_class)


def probabilities(classifier, images):
    return torch.sigmoid(classifier(torch.tensor(images).float().unsqueeze(1))).numpy()


def test_attributions_of_val_and_test_in_the_stores_order(folder, monkeypatch, classifier, images):
    run(explain, monkeypatch, "--method", "gradient")
    written = Explanations.open("data/explanations/gradient")
    explained = [1, 2, 3, 5, 6, 7, 8]
    assert list(written.index["slice_id"]) == [f"slice_{n}" for n in explained]
    assert written.counterfactual is None
    assert written.attribution.shape == (7, 32, 32) and written.attribution.dtype == np.float16
    np.testing.assert_allclose(written.index["f_x"], probabilities(classifier, images[explained]), atol=1e-5)
    assert written.index[["f_x_cf", "steps", "cycle_l1"]].isna().all(axis=None)
    assert written.timing["images"] == 7 and written.timing["seconds"] > 0
    assert written.timing["seconds_per_image"] == pytest.approx(written.timing["seconds"] / 7)


def test_random_maps_follow_the_store_position_whatever_the_batch(folder, monkeypatch):
    run(explain, monkeypatch, "--method", "random")
    first = np.array(Explanations.open("data/explanations/random").attribution)
    write_params(PARAMS | {"explain": {"batch_size": 3, "splits": ["test"]}})
    run(explain, monkeypatch, "--method", "random")
    second = Explanations.open("data/explanations/random")
    assert list(second.index["slice_id"]) == [f"slice_{n}" for n in (2, 3, 5, 7, 8)]
    np.testing.assert_array_equal(second.attribution, first[[1, 2, 3, 5, 6]])


def test_shares_of_an_array_job_give_the_same_files(folder, monkeypatch, capsys):
    def written():
        return {file.name: file.read_bytes() for file in (folder / "data/explanations/gradient").iterdir()
                if file.name != "timing.json"}

    run(explain, monkeypatch, "--method", "gradient")
    whole = written()
    shutil.rmtree("data/explanations")
    for share in ("2/2", "1/2"):
        run(explain, monkeypatch, "--method", "gradient", "--part", share)
        assert not Path("data/explanations").exists()
    capsys.readouterr()
    run(explain, monkeypatch, "--method", "gradient")
    assert written() == whole and not Path(".scratch/explain_gradient").exists()
    assert "resuming explain/gradient: 2 of 2 parts" in capsys.readouterr().out


class Halving(Method):
    """A counterfactual method: every image at half its contrast, in ten times as many steps as its row."""

    Params = MapParams
    extras = (STEPS,)

    def __call__(self, images, rows, organ):
        return ExplanationBatch.from_counterfactual(images, images / 2, {STEPS: rows * 10})


def test_counterfactuals_are_scored_as_they_are_stored(folder, monkeypatch, classifier, images):
    give_method(monkeypatch, Halving)
    run(explain, monkeypatch, "--method", "gradient")
    written = Explanations.open("data/explanations/gradient")
    stored = np.array(written.counterfactual)
    np.testing.assert_allclose(stored, images[[1, 2, 3, 5, 6, 7, 8]] / 2, atol=1e-3)
    np.testing.assert_allclose(written.attribution, np.abs(images[[1, 2, 3, 5, 6, 7, 8]]) / 4, atol=1e-3)
    np.testing.assert_allclose(written.index["f_x_cf"], probabilities(classifier, stored), atol=1e-6)
    assert list(written.index["steps"]) == [10, 20, 30, 50, 60, 70, 80]


def test_a_method_with_a_way_back_tells_how_far_from_the_scan_it_ends(folder, monkeypatch):
    class ThereAndBack(Halving):
        extras = (CYCLE_L1,)

        def __call__(self, images, rows, organ):
            return ExplanationBatch(images[:, 0].abs() / 4, images / 2, {CYCLE_L1: rows / 100})

    give_method(monkeypatch, ThereAndBack)
    run(explain, monkeypatch, "--method", "gradient")
    index = Explanations.open("data/explanations/gradient").index
    np.testing.assert_allclose(index["cycle_l1"], [0.01, 0.02, 0.03, 0.05, 0.06, 0.07, 0.08], atol=1e-6)
    assert index["steps"].isna().all()


def test_a_method_that_also_makes_images_abnormal_has_both(folder, monkeypatch, classifier, images):
    class Both(Halving):
        extras = (ABNORMAL,)

        def __call__(self, images, rows, organ):
            return ExplanationBatch.from_counterfactual(images, images / 2, {ABNORMAL: (images + 1) / 2})

    run(explain, monkeypatch, "--method", "random")
    without = Explanations.open("data/explanations/random")
    assert without.abnormal is None and without.index["f_x_ab"].isna().all()
    give_method(monkeypatch, Both)
    run(explain, monkeypatch, "--method", "gradient")
    written = Explanations.open("data/explanations/gradient")
    stored = np.array(written.abnormal)
    np.testing.assert_allclose(stored, (images[[1, 2, 3, 5, 6, 7, 8]] + 1) / 2, atol=1e-3)
    np.testing.assert_allclose(written.index["f_x_ab"], probabilities(classifier, stored), atol=1e-6)
    np.testing.assert_allclose(written.index["f_x_cf"], probabilities(classifier, np.array(written.counterfactual)),
                               atol=1e-6)
    np.testing.assert_allclose(written.attribution, np.abs(images[[1, 2, 3, 5, 6, 7, 8]]) / 4, atol=1e-3)


def test_a_map_with_nan_is_refused_and_the_old_one_stays(folder, monkeypatch):
    run(explain, monkeypatch, "--method", "random")
    before = np.array(Explanations.open("data/explanations/random").attribution)

    class Broken(MapMethod):
        def maps(self, images, rows):
            return torch.full_like(images[:, 0], float("nan"))

    give_method(monkeypatch, Broken)
    with pytest.raises(ValueError, match="attribution of slice slice_1"):
        run(explain, monkeypatch, "--method", "random")
    np.testing.assert_array_equal(Explanations.open("data/explanations/random").attribution, before)


def test_an_extra_that_the_method_does_not_declare_is_refused(folder, monkeypatch):
    class Undeclared(Halving):
        extras = ()

    give_method(monkeypatch, Undeclared)
    with pytest.raises(ValueError, match="method random gives `steps`.*add it to the `extras` of Undeclared"):
        run(explain, monkeypatch, "--method", "random")


TOY_METHOD = """
from pydantic import PositiveFloat
from flipside.artifacts.explanations import Image, Number
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.maps import MapMethod, MapParams, min_max_scale

MEAN, DARKER = Number("mean"), Image("darker", -1, 1, score="f_x_darker")


class ToyParams(MapParams):
    power: PositiveFloat
    "Exponent of the brightness."


class Toy(MapMethod):
    Params = ToyParams
    extras = (MEAN, DARKER)

    def maps(self, images, rows):
        return ((images.squeeze(1) + 1) / 2) ** self.params.power

    def __call__(self, images, rows, organ):
        batch = super().__call__(images, rows, organ)
        return ExplanationBatch(batch.attribution, None, {MEAN: images.mean(dim=(1, 2, 3)), DARKER: images / 2 - 0.5})
"""


@pytest.fixture
def toy_method(folder, monkeypatch):
    """One file `toy.py` among the methods, with extras of its own, and its block in params.yaml."""
    (folder / "methods").mkdir()
    (folder / "methods/toy.py").write_text(TOY_METHOD)
    monkeypatch.setattr(flipside.methods, "__path__", [*flipside.methods.__path__, str(folder / "methods")])
    yield PARAMS["methods"]["random"] | {"power": 2.0}
    sys.modules.pop("flipside.methods.toy", None)


def test_a_map_method_is_added_by_one_file_and_its_block(toy_method, folder, monkeypatch, classifier, images):
    write_params(PARAMS | {"methods": {"toy": toy_method}})
    run(explain, monkeypatch, "--method", "toy")
    run(judge_counterfactuals, monkeypatch)
    written, explained = Explanations.open("data/explanations/toy"), images[[1, 2, 3, 5, 6, 7, 8]]
    brightness = ((explained.astype(np.float32) + 1) / 2) ** 2
    low, high = (each(axis=(1, 2), keepdims=True) for each in (brightness.min, brightness.max))
    np.testing.assert_allclose(written.attribution, (brightness - low) / (high - low), atol=1e-3)
    np.testing.assert_allclose(written.index["mean"], explained.astype(np.float32).mean(axis=(1, 2)), atol=1e-5)
    expected = probabilities(classifier, np.array(written.extras["darker"]))
    np.testing.assert_allclose(written.index["f_x_darker"], expected, atol=1e-6)
    found = read_json("data/explanations/toy/randomisation.json")
    assert found["reason"] == "the test split has no slice labelled abnormal"
    assert pd.read_csv("data/judgements/toy.csv")["judge_x"].notna().all()


def test_the_block_of_an_added_method_is_checked_with_all_others(toy_method, folder):
    shutil.copy(ROOT / "datasets.yaml", folder)
    values = yaml.safe_load(PARAMS_FILE.read_text())
    write_params(values | {"methods": values["methods"] | {"toy": toy_method}})
    check_all()
    write_params(values | {"methods": values["methods"] | {"toy": toy_method | {"power": -1}}})
    with pytest.raises(ParamsError, match=r"`methods\.toy\.power` is -1"):
        check_all()


TOY_GENERATOR = '''
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import nn
from flipside.generators.base.generator import GeneratorParams, TrainedGenerator
from flipside.generators.base.state import TrainingState, update


class ToyParams(GeneratorParams):
    steps: PositiveInt
    "Steps of the training."


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return images * self.scale


class Toy(TrainedGenerator[ToyParams]):
    Params = ToyParams

    def __init__(self, params, classifier, lesion_fraction):
        super().__init__(params, classifier, lesion_fraction)
        self.network = self.build({})

    @staticmethod
    def architecture_of(params, classifier):
        return {}

    @staticmethod
    def build(architecture):
        return Scale()

    def train(self, data, seed, scratch):
        optimizer, state = torch.optim.Adam(self.network.parameters(), 0.05), TrainingState(scratch, self.params.steps)
        for _ in range(self.params.steps):
            images = data.images[: self.params.batch_size].float().unsqueeze(1)
            loss = F.softplus(self.classifier(self.network(images))).mean()
            update(optimizer, loss)
            state.record({"classifier": loss}, network=self.network)
        return state.finish(self.network)
'''
TOY_PASS = '''
from typing import Literal
from flipside.methods.base.generator_pass import GeneratorPass
from flipside.methods.base.parameters import MethodParams


class ToyParams(MethodParams):
    needs: Literal["models/generators/toy"]
    "Folder of the trained generator."


class Toy(GeneratorPass):
    Params = ToyParams
'''


def test_a_trained_method_is_added_by_two_files_and_their_blocks(folder, monkeypatch, classifier, images):
    for package, text in ((flipside.generators, TOY_GENERATOR), (flipside.methods, TOY_PASS)):
        added = folder / package.__name__
        added.mkdir()
        (added / "toy.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(added)])
    monkeypatch.setattr(train_generator, "load_classifier", lambda path, runtime, channels: classifier)
    write_json("models/classifiers/classifier/model.json", {"data_fingerprint": "made up"})
    write_params(PARAMS | {"generators": {"toy": {"batch_size": 2, "seed_offset": 0, "steps": 20}},
                           "methods": {"toy": {"needs": "models/generators/toy"}}})
    try:
        run(train_generator, monkeypatch, "--generator", "toy")
        run(explain, monkeypatch, "--method", "toy")
    finally:
        for package in ("generators", "methods"):
            sys.modules.pop(f"flipside.{package}.toy", None)
    scale = float(load_file("models/generators/toy/model.safetensors")["scale"])
    assert 0 < scale < 0.9  # less contrast speaks for healthy
    written, explained = Explanations.open("data/explanations/toy"), images[[1, 2, 3, 5, 6, 7, 8]]
    np.testing.assert_allclose(written.counterfactual, explained.astype(np.float32) * scale, atol=2e-3)
    assert "trained against the classifier" in read_json("data/explanations/toy/randomisation.json")["reason"]


def test_no_slice_to_explain_is_refused(folder, monkeypatch):
    index = pd.read_csv("data/slices/index.csv")
    index.assign(split="train").to_csv("data/slices/index.csv", index=False)
    with pytest.raises(ValueError, match="no slice of the splits"):
        run(explain, monkeypatch, "--method", "random")


def test_method_without_a_block_is_named(folder, monkeypatch):
    with pytest.raises(ParamsError, match="methods.cam"):
        run(explain, monkeypatch, "--method", "cam")


def test_judge_scores_slices_and_counterfactuals(folder, monkeypatch, classifier, images):
    give_method(monkeypatch, Halving)
    run(explain, monkeypatch, "--method", "gradient")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(explain_slices, "load_classifier", lambda path, runtime, channels: classifier)
    loaded = []
    monkeypatch.setattr(judge_counterfactuals, "load_classifier", lambda path, *_: loaded.append(path) or classifier)
    run(explain, monkeypatch, "--method", "random")
    run(judge_counterfactuals, monkeypatch)

    assert loaded == ["models/classifiers/judge"]
    explained = [1, 2, 3, 5, 6, 7, 8]
    stored = np.array(Explanations.open("data/explanations/gradient").counterfactual)
    table = pd.read_csv("data/judgements/gradient.csv")
    assert list(table.columns) == ["slice_id", "judge_x", "judge_x_cf", "judge_x_ab"]
    np.testing.assert_allclose(table["judge_x"], probabilities(classifier, images[explained]), atol=1e-5)
    np.testing.assert_allclose(table["judge_x_cf"], probabilities(classifier, stored), atol=1e-5)
    without = pd.read_csv("data/judgements/random.csv")
    np.testing.assert_allclose(without["judge_x"], table["judge_x"], atol=1e-6)
    assert without["judge_x_cf"].isna().all() and table["judge_x_ab"].isna().all()


def test_judge_scores_images_made_abnormal(folder, monkeypatch, classifier, images):
    explained = images[[2, 3]]
    index = pd.DataFrame({"slice_id": ["slice_2", "slice_3"], "f_x": 0.5, "f_x_cf": 0.1, "f_x_ab": 0.9,
                          "steps": np.nan})
    for name in PARAMS["methods"]:
        write_explanations(f"data/explanations/{name}", np.zeros(explained.shape), explained / 2, index, {},
                           {ABNORMAL: (explained + 1) / 2})
    run(judge_counterfactuals, monkeypatch)
    table = pd.read_csv("data/judgements/random.csv")
    for column, made in (("judge_x_cf", explained / 2), ("judge_x_ab", (explained + 1) / 2)):
        np.testing.assert_allclose(table[column], probabilities(classifier, made.astype(np.float16)), atol=1e-5)
    assert not np.allclose(table["judge_x_cf"], table["judge_x_ab"], atol=1e-3)


def test_judge_forgets_methods_that_were_taken_out(folder, monkeypatch):
    for name in PARAMS["methods"]:
        run(explain, monkeypatch, "--method", name)
    run(judge_counterfactuals, monkeypatch)
    write_params(PARAMS | {"methods": {"random": PARAMS["methods"]["random"]}})
    run(judge_counterfactuals, monkeypatch)
    assert [path.name for path in (folder / "data/judgements").iterdir()] == ["random.csv"]


def test_judge_refuses_explanations_of_other_slices(folder, monkeypatch):
    index = pd.DataFrame({"slice_id": ["elsewhere"], "f_x": [0.5], "f_x_cf": [np.nan], "steps": [np.nan]})
    for name in PARAMS["methods"]:
        write_explanations(f"data/explanations/{name}", np.zeros((1, 32, 32)), None, index, {})
    with pytest.raises(ValueError, match="first: elsewhere"):
        run(judge_counterfactuals, monkeypatch)


def test_timing_is_of_the_method_alone(folder, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(explain_slices, "now", lambda runtime: next(clock))
    run(explain, monkeypatch, "--method", "random")
    assert read_json("data/explanations/random/timing.json")["seconds"] == 2  # two batches, one tick of the clock each


def test_a_script_runs_by_its_path_too(tmp_path):
    """As dvc.yaml runs it it is a module; with the package installed its path does as well."""
    result = subprocess.run([sys.executable, str(ROOT / "stages/explain.py"), "--help"], cwd=tmp_path, check=False,
                            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0 and "--method" in result.stdout, result.stderr

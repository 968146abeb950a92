"""The room's stages, run on a small store: what they write, what they refuse, and that they never need the truth."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from flipside.artifacts.explanations import Explanations, write_explanations
from flipside.core.files import read_json
from flipside.core.params import ParamsError
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.methods.base import method
from flipside.methods.base.method import ExplanationBatch
from stages import explain, judge_counterfactuals

PARAMS = {
    "seed": 3,
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
    for stage in (explain, judge_counterfactuals):
        monkeypatch.setattr(stage, "load_classifier", lambda path, runtime: classifier)
    return tmp_path


def write_params(params):
    with open("params.yaml", "w") as file:
        yaml.safe_dump(params, file)


def run(stage, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    stage.main()


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


class Halving:
    """A counterfactual method: every image at half its contrast, in as many steps as its row."""

    MethodParams = method.AttributionParams

    class Method:
        def __init__(self, params, context):
            pass

        def __call__(self, images, rows, organ):
            return ExplanationBatch.from_counterfactual(images, images / 2, steps=rows * 10)


def test_counterfactuals_are_scored_as_they_are_stored(folder, monkeypatch, classifier, images):
    monkeypatch.setattr(explain, "load_method", lambda name: Halving)
    run(explain, monkeypatch, "--method", "gradient")
    written = Explanations.open("data/explanations/gradient")
    stored = np.array(written.counterfactual)
    np.testing.assert_allclose(stored, images[[1, 2, 3, 5, 6, 7, 8]] / 2, atol=1e-3)
    np.testing.assert_allclose(written.attribution, np.abs(images[[1, 2, 3, 5, 6, 7, 8]]) / 4, atol=1e-3)
    np.testing.assert_allclose(written.index["f_x_cf"], probabilities(classifier, stored), atol=1e-6)
    assert list(written.index["steps"]) == [10, 20, 30, 50, 60, 70, 80]


def test_a_method_with_a_way_back_tells_how_far_from_the_scan_it_ends(folder, monkeypatch):
    class ThereAndBack(Halving):
        class Method(Halving.Method):
            def __call__(self, images, rows, organ):
                return ExplanationBatch(images[:, 0].abs() / 4, images / 2, cycle_l1=rows / 100)

    monkeypatch.setattr(explain, "load_method", lambda name: ThereAndBack)
    run(explain, monkeypatch, "--method", "gradient")
    index = Explanations.open("data/explanations/gradient").index
    np.testing.assert_allclose(index["cycle_l1"], [0.01, 0.02, 0.03, 0.05, 0.06, 0.07, 0.08], atol=1e-6)
    assert index["steps"].isna().all()


def test_a_method_that_also_makes_images_abnormal_has_both(folder, monkeypatch, classifier, images):
    class Both(Halving):
        class Method(Halving.Method):
            def __call__(self, images, rows, organ):
                return ExplanationBatch.from_counterfactual(images, images / 2, abnormal=(images + 1) / 2)

    run(explain, monkeypatch, "--method", "random")
    without = Explanations.open("data/explanations/random")
    assert without.abnormal is None and without.index["f_x_ab"].isna().all()
    monkeypatch.setattr(explain, "load_method", lambda name: Both)
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

    class Broken(Halving):
        class Method(Halving.Method):
            def __call__(self, images, rows, organ):
                return ExplanationBatch.from_maps(torch.full_like(images[:, 0], float("nan")))

    monkeypatch.setattr(explain, "load_method", lambda name: Broken)
    with pytest.raises(ValueError, match="attribution of slice slice_1"):
        run(explain, monkeypatch, "--method", "random")
    np.testing.assert_array_equal(Explanations.open("data/explanations/random").attribution, before)


def test_no_slice_to_explain_is_refused(folder, monkeypatch):
    index = pd.read_csv("data/slices/index.csv")
    index.assign(split="train").to_csv("data/slices/index.csv", index=False)
    with pytest.raises(ValueError, match="no slice of the splits"):
        run(explain, monkeypatch, "--method", "random")


def test_method_without_a_block_is_named(folder, monkeypatch):
    with pytest.raises(ParamsError, match="methods.cam"):
        run(explain, monkeypatch, "--method", "cam")


def test_judge_scores_slices_and_counterfactuals(folder, monkeypatch, classifier, images):
    monkeypatch.setattr(explain, "load_method", lambda name: Halving)
    run(explain, monkeypatch, "--method", "gradient")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(explain, "load_classifier", lambda path, runtime: classifier)
    loaded = []
    monkeypatch.setattr(judge_counterfactuals, "load_classifier", lambda path, _: loaded.append(path) or classifier)
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
                           (explained + 1) / 2)
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
    monkeypatch.setattr(explain, "now", lambda runtime: next(clock))
    run(explain, monkeypatch, "--method", "random")
    assert read_json("data/explanations/random/timing.json")["seconds"] == 2  # two batches, one tick of the clock each

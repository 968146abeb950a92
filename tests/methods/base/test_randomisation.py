"""The model randomisation check: what is shuffled, how maps are compared, and which methods are found out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.files import read_json
from flipside.core.store import INDEX_COLUMNS, SliceStore, write_store
from flipside.methods.base import explain_slices
from flipside.methods.base.maps import MapMethod
from flipside.methods.base.randomisation import (
    choose_slices,
    compare_maps,
    rank_correlation,
    shuffle_weights,
    structural_similarities,
)
from stages import explain

CLASSIFIER = "models/classifiers/classifier"
METHODS_FILE = Path(__file__).parents[3] / "params.yaml"
PARAMS = {
    "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
    "explain": {"batch_size": 3, "splits": ["test"]},
    "sanity": {"slices": 5, "draws": 2, "threshold": 0.8},
    "methods": {"gradient": {"needs": CLASSIFIER}, "cam": {"needs": CLASSIFIER}, "random": {"needs": CLASSIFIER},
                "intensity": {"needs": CLASSIFIER}, "centre": {"needs": CLASSIFIER, "sigma": 0.25},
                "coin": {"needs": "models/generators/coin"},
                "cx_gan": {"needs": "models/generators/cx_gan", "attribution": "map"},
                "va_gan": {"needs": "models/generators/va_gan"}},
}


@pytest.fixture
def network(planted_nine):
    """A small residual net whose statistics fit the images, as after a training."""
    torch.manual_seed(0)
    network = build_classifier("small_resnet", 8, pretrained=False).train()
    for _ in range(30):
        network(planted_nine)
    return network.eval().requires_grad_(False)


def multisets(network):
    return {name: tensor.flatten().sort().values for name, tensor in network.named_parameters()}


@pytest.mark.parametrize("layers", ["head", "all"])
def test_weights_are_permuted_and_nothing_else(layers, network, planted_nine):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    other = shuffle_weights(network, layers, planted_nine, (3, 0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not other.training and not any(module.training for module in other.modules())
    assert not any(parameter.requires_grad for parameter in other.parameters())
    for (name, values), expected in zip(multisets(other).items(), multisets(network).values(), strict=True):
        assert torch.equal(values, expected), name
    changed = {name for name, tensor in other.named_parameters() if not torch.equal(tensor, before[name])}
    kernels = {name for name, tensor in network.named_parameters() if tensor.dim() > 1}
    assert changed == ({"linear.weight"} if layers == "head" else kernels)  # norms of an untrained net are all alike


def test_the_draw_decides_the_shuffle(network, planted_nine):
    one, again, another = (shuffle_weights(network, "all", planted_nine, (3, draw))(planted_nine) for draw in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, another)


def test_the_shuffled_network_still_tells_images_apart(network, planted_nine):
    """With the old statistics its answers hardly differ: any map would then change, and every method pass."""
    other = shuffle_weights(network, "all", planted_nine, (3, 0))
    for norm in (module for module in other.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    seen = []
    other(planted_nine)
    for outputs in seen:  # scale 1 and shift 0 in an untrained net
        torch.testing.assert_close(outputs.mean(dim=(0, 2, 3)), torch.zeros(outputs.shape[1]), atol=0.01, rtol=0)
        torch.testing.assert_close(outputs.var(dim=(0, 2, 3)), torch.ones(outputs.shape[1]), atol=0.05, rtol=0)


def test_rank_correlation_is_spearmans_without_its_sign():
    generator = np.random.default_rng(0)
    maps = generator.random((6, 9, 7)).round(1)  # with many ties
    others = (maps + generator.normal(0, 0.4, maps.shape)).round(1)
    expected = [abs(stats.spearmanr(one.ravel(), other.ravel()).statistic)
                for one, other in zip(maps, others, strict=True)]
    np.testing.assert_allclose(rank_correlation(maps, others), expected)
    np.testing.assert_allclose(rank_correlation(maps, 1 - maps), 1)
    np.testing.assert_allclose(rank_correlation(maps, maps**3), 1)


def test_a_blank_map_is_like_itself_and_like_nothing_else():
    blank, drawn = np.zeros((1, 12, 12)), np.random.default_rng(0).random((1, 12, 12))
    assert rank_correlation(blank, blank) == 1 and rank_correlation(blank, drawn) == 0
    assert structural_similarities(blank, blank) == 1 and structural_similarities(blank, drawn) < 0.1


def maps_in_turn(*maps):
    """A method's maps (B,H,W) under the trained classifier and then under each shuffled one."""
    given = iter(maps)
    return lambda network: next(given)


def test_pairs_of_blank_maps_are_left_out(network, planted_nine):
    """They are alike under any weights: many of them would make any map one that never changes."""
    trained, head, first, second = np.random.default_rng(0).random((4, 9, 12, 12))
    for maps in (trained, head, first, second):
        maps[[0, 1, 2, 3, 5, 6, 7]] = 0.25
    trained[8] = second[8] = 0  # blank, and drawn by the first shuffled network
    found, compared = compare_maps(maps_in_turn(trained, head, head, first, second), network, planted_nine, 2, 3)
    assert compared.tolist() == [False] * 4 + [True] + [False] * 3 + [True]
    rho = [rank_correlation(trained[4:5], maps[4:5]).item() for maps in (head, first, second)]
    assert found["spearman_head"] == pytest.approx(rho[0] / 2)  # slice 4 twice, slice 8 twice with 0
    assert found["spearman_all"] == pytest.approx((rho[1] + rho[2] + 0) / 3)
    assert found["ssim_all"] < 0.2


def test_layers_with_blank_maps_alone_have_no_value(network, planted_nine):
    blank, drawn = np.zeros((9, 12, 12)), np.random.default_rng(0).random((9, 12, 12))
    found, compared = compare_maps(maps_in_turn(blank, blank, drawn), network, planted_nine, 1, 3)
    assert set(found) == {"spearman_all", "ssim_all"} and compared.all()
    found, compared = compare_maps(maps_in_turn(blank, drawn, blank), network, planted_nine, 1, 3)
    assert set(found) == {"spearman_head", "ssim_head"} and not compared.any()


@pytest.fixture
def folder(tmp_path, monkeypatch, network, planted_nine):
    """Nine slices, of which the last seven are test and the last six of these abnormal."""
    index = pd.DataFrame({column: [0] * 9 for column in INDEX_COLUMNS})
    index = index.assign(slice_id=[f"slice_{n}" for n in range(9)], split=["train"] * 2 + ["test"] * 7,
                         label=[1, 1, 0, *[1] * 6], patient_id=[f"p{n // 2}" for n in range(9)])
    monkeypatch.chdir(tmp_path)
    images = planted_nine[:, 0].numpy().astype(np.float16)
    write_store("data/slices", images, np.ones(images.shape, np.uint8), index)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.setattr(explain_slices, "load_classifier", lambda path, runtime, channels: network)
    yield tmp_path
    torch.set_flush_denormal(False)  # which a stage switches on for its process


def check(monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["stage", "--method", name])
    explain.main()
    return read_json(f"data/explanations/{name}/randomisation.json")


@pytest.mark.parametrize("name", ["random", "intensity", "centre"])
def test_a_map_that_ignores_the_classifier_is_found_out(folder, monkeypatch, name):
    found = check(monkeypatch, name)
    assert found["changed"] is False
    for value in ("spearman_head", "ssim_head", "spearman_all", "ssim_all"):
        assert found[value] == pytest.approx(1)


@pytest.mark.parametrize("name", ["gradient", "cam"])
def test_a_map_of_the_classifier_changes_with_its_weights(folder, monkeypatch, name):
    found = check(monkeypatch, name)
    assert found["changed"] is True
    assert found["spearman_all"] < 0.8 or found["ssim_all"] < 0.8
    assert found["spearman_head"] < 1 and found["ssim_head"] < 1
    assert (found["n_slices"], found["n_patients"], found["draws"]) == (5, 3, 2)


def test_the_batch_does_not_matter_and_the_seed_gives_the_same_bytes(folder, monkeypatch):
    first = check(monkeypatch, "gradient")
    assert check(monkeypatch, "gradient") == first
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"explain": {"batch_size": 16, "splits": ["test"]}}))
    assert check(monkeypatch, "gradient") == pytest.approx(first, rel=1e-3)


def test_a_trained_generator_is_not_put_to_the_test_and_says_why(folder, monkeypatch, toy_models, capsys):
    (folder / "models").symlink_to(toy_models("models/generators/coin") / "models")
    found = check(monkeypatch, "coin")
    assert list(found) == ["reason"] and "models/generators/coin" in found["reason"]
    assert "maps not checked: it explains with models/generators/coin" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cx_gan", "va_gan"])
def test_a_map_of_labels_alone_is_found_out_to_say_nothing_of_the_classifier(folder, monkeypatch, toy_models, name):
    (folder / "models").symlink_to(toy_models(f"models/generators/{name}") / "models")
    found = check(monkeypatch, name)
    assert found["changed"] is False
    assert found["spearman_all"] == pytest.approx(1) and found["ssim_all"] == pytest.approx(1)


def test_an_inpainter_that_never_saw_the_classifier_explains_any(folder, monkeypatch, toy_models):
    (folder / "models").symlink_to(toy_models("models/generators/impact") / "models")
    block = yaml.safe_load(METHODS_FILE.read_text())["methods"]["impact"]
    # This network's answers hardly differ and may be below any limit: nothing else may pull harder than they do.
    block |= {"steps": 20, "least_logit": -1e6, "lambda_total_variation": 0.1}
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"methods": {"impact": block}}))
    found = check(monkeypatch, "impact")
    assert found["changed"] is True and found["n_slices"] == 5


def test_maps_that_are_all_blank_are_no_evidence_and_the_reason_is_given(folder, monkeypatch, capsys):
    class Blank(MapMethod):
        def maps(self, images, rows):
            return torch.zeros_like(images[:, 0])

    for module in (explain, explain_slices):
        monkeypatch.setattr(module, "find_method", lambda name: Blank)
    assert check(monkeypatch, "gradient") == {"reason":
        "its maps of 5 slices are all blank, under trained and under shuffled weights"}
    assert "maps not checked: its maps of 5 slices are all blank" in capsys.readouterr().out


def test_without_an_abnormal_test_slice_there_is_no_number(folder, monkeypatch):
    pd.read_csv("data/slices/index.csv").assign(label=0).to_csv("data/slices/index.csv", index=False)
    assert "no slice labelled abnormal" in check(monkeypatch, "gradient")["reason"]


def test_every_method_is_checked_on_the_same_abnormal_test_slices(folder):
    store = SliceStore.open("data/slices")
    rows = choose_slices(store, 4, seed=3)
    assert len(set(rows)) == 4 and set(rows) <= set(range(3, 9)) and (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(choose_slices(store, 4, seed=3), rows)
    assert choose_slices(store, 100, seed=3).tolist() == list(range(3, 9))

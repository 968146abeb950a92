"""AttFind and StylEx: a planted attribute is found, shared layers are computed once, moves are made until it flips."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from flipside.artifacts.explanations import F_RECONSTRUCTION, STEPS, Explanations
from flipside.core.checkpoint import save_model
from flipside.core.files import read_json
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.generators.base.loading import load_generator
from flipside.generators.codes.styles import State, Styles
from flipside.generators.stylegan import StyleGAN, StyleGANParams
from flipside.methods.base import explain_slices
from flipside.methods.latent import attributes as attributes_module
from flipside.methods.latent.attributes import AttributeParams, Attributes, Extremes, measure_effects, select_moves
from flipside.methods.stylex import Stylex, StylexParams
from stages import explain, find_attributes
from tests.generators.toys import STYLEGAN
from tests.killed import dies_at
from tests.methods.conftest import PARAMS, BlobClassifier

SPLITS = ["train", "val", "test", "test", "train", "test", "val", "test", "train"]
FIND = {"images": 6, "count": 3, "shift": 1.0, "explained_at": "flip", "unstable_effect": 0.3, "unstable_share": 1.0,
        "batch_size": 4}
PLANTED = 5  # the coordinate of layer 1, map 2: layer 0 has three


class Planted:
    """Two layers of three and four coordinates. Map 2 of layer 1 says how bright a disc is, all others next to nothing;
    `computed` counts the images that each layer was computed for."""

    def __init__(self, size=32):
        grid = torch.arange(size).float()
        self.disc = ((grid[:, None] - 12) ** 2 + (grid - 18) ** 2 <= 25).float()
        self.computed = [0, 0]

    def begin(self, count):
        return State(torch.full((1, 1, 32, 32), -0.3).expand(count, -1, -1, -1), None)

    def advance(self, state, styles, layer, noise=None):
        values = styles.space[layer]  # (B,C)
        assert len(values) == len(state.maps)
        self.computed[layer] += len(values)
        maps = state.maps + 0.001 * values.sum(dim=1)[:, None, None, None]
        if layer == 1:
            maps = maps + values[:, 2, None, None, None] * self.disc
        return State(maps, maps)

    def finish(self, state, styles, first, noise=None):
        for layer in range(first, 2):
            state = self.advance(state, styles, layer)
        return state.image


def styles_of(brightness):
    """One image for each number; its other coordinates are small random ones."""
    count = len(brightness)
    space = [torch.rand(count, 3), torch.rand(count, 4)]
    space[1][:, 2] = torch.tensor(brightness)
    return Styles(space, [])


@pytest.fixture
def planted_styles():
    """Six images with a bright disc, and the extremes over these and six without."""
    torch.manual_seed(0)
    bright, dark = styles_of([1.0, 1.1, 0.9, 1.2, 1.0, 0.95]), styles_of([0.0] * 6)
    return bright, Extremes.of(Styles.joined([bright, dark]))


def found_in(styles, extremes, classifier, synthesis=None):
    answers = [measure_effects(synthesis or Planted(), classifier, styles.rows(torch.tensor([row])), extremes, 1.0, 4)
               for row in range(len(styles.space[0]))]
    return torch.stack([answer[0] for answer in answers]), torch.stack([answer[1] for answer in answers])


def test_a_planted_attribute_is_the_first_that_is_found(planted_styles, classifier):
    styles, extremes = planted_styles
    found, logits = found_in(styles, extremes, classifier)
    chosen, stable = select_moves(found, logits, AttributeParams(**FIND))
    assert chosen[0] == (PLANTED, 0) and stable.all()  # toward its least value: no disc
    assert (logits > 0).all() and (logits - found[:, PLANTED, 0] < 0).all()
    others = [found[:, coordinate].max() for coordinate in range(7) if coordinate != PLANTED]
    assert max(others) < 0.2 * found[:, PLANTED, 0].min()
    attributes = extremes.attributes(chosen, 1.0)
    assert (int(attributes.layer[0]), int(attributes.channel[0]), float(attributes.extreme[0])) == (1, 2, 0.0)


def test_effects_are_those_of_every_move_made_alone_from_the_start(planted_styles, classifier):
    styles, extremes = planted_styles
    one, synthesis = styles.rows(torch.tensor([3])), Planted()
    found, logit = measure_effects(synthesis, classifier, one, extremes, 0.5, 4)
    base = classifier(synthesis.finish(synthesis.begin(1), one, 0))
    torch.testing.assert_close(logit, base[0])
    moves = 0
    for layer, values in enumerate(extremes.layers):
        for channel in range(len(values)):
            for direction in range(2):
                changed = one.space[layer].clone()
                changed[0, channel] += 0.5 * (values[channel, direction] - changed[0, channel])
                images = synthesis.finish(synthesis.begin(1), one.with_layer(layer, changed), 0)
                expected = base[0] - classifier(images.clamp(-1, 1))[0]
                torch.testing.assert_close(found[moves // 2, direction], expected, atol=1e-4, rtol=1e-4)
                moves += 1
    assert found.shape == (7, 2) and moves == 14


def test_layers_before_the_moved_one_are_computed_once(planted_styles, classifier):
    styles, extremes = planted_styles
    synthesis = Planted()
    measure_effects(synthesis, classifier, styles.rows(torch.tensor([0])), extremes, 1.0, 4)
    assert synthesis.computed == [6 + 1, 6 + 8 + 1]  # from the start for every move: 15 and 15


def test_effects_in_a_real_generator_are_those_of_whole_images(classifier):
    torch.manual_seed(0)
    generator = StyleGAN.build(StyleGAN.architecture_of(StyleGANParams(**STYLEGAN), BlobClassifier())).eval()
    with torch.no_grad():
        whole = generator.encoded(torch.rand(5, 1, 16, 16), torch.rand(5))
        extremes, one = Extremes.of(whole), whole.rows(torch.tensor([2]))
        found, logit = measure_effects(generator.synthesis, classifier, one, extremes, 1.0, 7)
        coordinate = 0
        for layer, values in enumerate(extremes.layers):
            changed = one.space[layer].clone()
            changed[0, 1] = values[1, 1]
            images = generator.render(one.with_layer(layer, changed)).clamp(-1, 1)
            torch.testing.assert_close(found[coordinate + 1, 1], logit - classifier(images)[0], atol=1e-3, rtol=1e-3)
            coordinate += len(values)
    assert len(found) == coordinate == 12 + 12 + 8 + 8 + 8


# The choice among moves: effects (images, coordinates, directions).


def table(*images):
    return torch.tensor(images)[:, :, None] * torch.tensor([1.0, -1.0])


def test_the_next_move_is_for_the_images_not_yet_explained():
    found = table([5.0, 4.0, 0.0], [5.0, 4.0, 0.0], [5.0, 4.0, 0.0], [0.0, 0.0, 2.0])
    logits = torch.full((4,), 3.0)
    assert [move[0] for move in select_moves(found, logits, AttributeParams(**FIND))[0]] == [0, 2, 1]
    additive = AttributeParams(**FIND | {"explained_at": 9.0})  # all effects of a move too small for that
    assert [move[0] for move in select_moves(found, logits, additive)[0]] == [0, 1, 2]
    assert len(select_moves(found, logits, AttributeParams(**FIND | {"count": 2}))[0]) == 2


def test_a_coordinate_is_moved_in_one_direction_and_only_where_it_helps():
    found = torch.tensor([[[3.0, 2.0], [0.5, 0.0], [-1.0, -2.0]]])
    assert select_moves(found, torch.tensor([9.0]), AttributeParams(**FIND))[0] == [(0, 0), (1, 0)]
    with pytest.raises(ValueError, match="no coordinate's move"):
        select_moves(-found.abs(), torch.tensor([9.0]), AttributeParams(**FIND))


def test_an_image_that_anything_changes_is_left_out():
    found = table([9.0, 9.0, 9.0], [0.0, 0.0, 1.0])
    params = AttributeParams(**FIND | {"unstable_share": 0.5})
    chosen, stable = select_moves(found, torch.full((2,), 3.0), params)
    assert chosen == [(2, 0)] and stable.tolist() == [False, True]
    with pytest.raises(ValueError, match="raise `unstable_effect`"):
        select_moves(found[:1], torch.full((1,), 3.0), params)


# Counterfactuals.


class Answers:
    """A generator whose images hold the classifier's logit: moving a lowers it by 3, b by 2.9 but no more after a, c
    by 1."""

    def encoded(self, images, probability):
        count = len(images)
        return Styles([torch.cat([torch.ones(count, 3), images[:, 0, 0, :1]], dim=1)], [])

    def render(self, styles, noise=None):
        a, b, c, base = (1 - styles.space[0]).unbind(dim=1)
        logit = 10 * (1 - base) - torch.maximum(3 * a, 2.9 * b) - c
        return (logit / 10)[:, None, None, None].expand(-1, 1, 4, 4)


def answering(selection, composite="none"):
    method = object.__new__(Stylex)
    method.params = StylexParams(needs="models/attributes/stylegan", selection=selection, composite=composite,
                                 margin=0.05)
    method.classifier, method.generator = (lambda images: 10 * images.mean(dim=(1, 2, 3))), Answers()
    method.attributes = Attributes(torch.zeros(3).long(), torch.arange(3), torch.zeros(3), torch.tensor(1.0))
    method.enough = -0.2
    return method


@pytest.mark.parametrize(("selection", "steps"), [("independent", [3, 1, 0]), ("subset", [2, 1, 0])])
def test_attributes_are_moved_until_the_decision_flips(selection, steps):
    images = torch.tensor([0.37, 0.25, -0.1])[:, None, None, None].expand(-1, 1, 4, 4)
    found = answering(selection)(images, torch.arange(3), torch.ones(3, 4, 4))
    assert found.extras[STEPS].tolist() == steps
    logits = 10 * found.counterfactual.mean(dim=(1, 2, 3))
    torch.testing.assert_close(logits, torch.tensor([-0.3, -0.5, -1.0]), atol=1e-4, rtol=0)
    expected = torch.sigmoid(10 * images[:, 0, 0, 0])
    torch.testing.assert_close(found.extras[F_RECONSTRUCTION], expected, atol=1e-4, rtol=0)


def test_an_image_that_cannot_be_flipped_has_all_moves_that_help():
    images = torch.full((1, 1, 4, 4), 0.9)
    found = answering("subset")(images, torch.arange(1), torch.ones(1, 4, 4))
    assert found.extras[STEPS].tolist() == [2] and float(found.counterfactual.mean()) == pytest.approx(0.5, abs=1e-4)


# The stages.


@pytest.fixture
def folder(tmp_path, monkeypatch, planted_nine, classifier):
    """A root with nine slices, a StyleGAN that has learnt nothing and the toy classifier."""
    monkeypatch.chdir(tmp_path)
    method = yaml.safe_load(PARAMS.read_text())["methods"]["stylex"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({
        "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
        "explain": {"batch_size": 4, "splits": ["val", "test"]}, "sanity": {"slices": 2, "draws": 1, "threshold": 0.8},
        "attributes": {"stylegan": FIND | {"count": 8}},
        "methods": {"stylex": method}}))
    images = planted_nine[:, 0].numpy().astype(np.float16)
    index = pd.DataFrame({column: [0] * len(SPLITS) for column in INDEX_COLUMNS})
    write_store("data/slices", images, np.ones(images.shape, np.uint8),
                index.assign(slice_id=[f"slice_{n}" for n in range(len(SPLITS))], split=SPLITS))
    torch.manual_seed(0)
    architecture = StyleGAN.architecture_of(StyleGANParams(**STYLEGAN | {"size_in": 8}), classifier)
    save_model("models/generators/stylegan", StyleGAN.build(architecture), {"architecture": architecture})
    save_model("models/classifiers/classifier", classifier, {})
    for module in (find_attributes, explain_slices):
        monkeypatch.setattr(module, "load_classifier", lambda path, runtime, channels: classifier)
    yield tmp_path
    torch.set_flush_denormal(False)  # which a stage switches on for its process


def run(stage, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    stage.main()


def test_attributes_and_counterfactuals_on_disk(folder, monkeypatch, planted_nine, classifier, runtime):
    run(find_attributes, monkeypatch, "--generator", "stylegan")
    attributes = Attributes.open("models/attributes/stylegan", torch.device("cpu"))
    written = pd.read_csv("reports/training/stylegan_attributes/attributes.csv")
    strip = np.load("reports/training/stylegan_attributes/strip.npy")
    assert 1 <= len(attributes) == len(written) <= 8 and strip.shape == (len(written), 3, 32, 32)
    assert (written["n_images"] == 3).all() and set(written["example"]) <= {"slice_0", "slice_4", "slice_8"}
    assert read_json("reports/training/stylegan_attributes/timing.json")["moves"] == 2 * (12 + 12 + 8 + 8 + 8)

    # What is said of the first attribute is so.
    generator, first = load_generator("models/attributes/stylegan", runtime), written.iloc[0]
    row = int(first["example"].removeprefix("slice_"))
    with torch.no_grad():
        image = planted_nine[row : row + 1].half().float()
        styles = generator.encoded(image, torch.sigmoid(classifier(image)))
        only = torch.zeros(1, len(attributes), dtype=torch.bool)
        only[0, 0] = True
        before, after = (generator.render(each).clamp(-1, 1) for each in (styles, attributes.apply(styles, only)))
        assert float(classifier(before)) == pytest.approx(first["logit_before"], abs=0.02)
        assert float(classifier(after)) == pytest.approx(first["logit_after"], abs=0.02)
    np.testing.assert_allclose(strip[0, :2], torch.cat([before, after])[:, 0].numpy(), atol=2e-3)

    run(explain, monkeypatch, "--method", "stylex")
    explained = Explanations.open("data/explanations/stylex")
    index = explained.index
    assert explained.counterfactual.shape == (6, 32, 32) and index["f_reconstruction"].between(0, 1).all()
    assert index["steps"].between(0, len(attributes)).all()
    assert (index.loc[index["f_x"] < 0.045, "steps"] == 0).all()
    assert (index["f_x_cf"] <= index["f_x"] + 0.05).all()  # images are stored in half precision


def test_a_killed_search_goes_on_to_the_same_attributes(folder, monkeypatch, capsys):
    run(find_attributes, monkeypatch, "--generator", "stylegan")
    files = [folder / "models/attributes/stylegan/attributes.safetensors",
             folder / "reports/training/stylegan_attributes/attributes.csv",
             folder / "reports/training/stylegan_attributes/strip.npy"]
    whole = [file.read_bytes() for file in files]
    monkeypatch.setattr(attributes_module, "SAVE_EVERY_SECONDS", 0.0)
    with dies_at(3, attributes_module, "measure_effects"):
        run(find_attributes, monkeypatch, "--generator", "stylegan")
    run(find_attributes, monkeypatch, "--generator", "stylegan")
    assert "at step 2" in capsys.readouterr().out
    assert [file.read_bytes() for file in files] == whole


def test_a_classifier_that_calls_nothing_abnormal_is_told_of(folder, monkeypatch, capsys):
    sure = BlobClassifier().eval()
    sure.bias = -500.0
    monkeypatch.setattr(find_attributes, "load_classifier", lambda path, runtime, channels: sure)
    run(find_attributes, monkeypatch, "--generator", "stylegan")
    assert "calls no training slice abnormal" in capsys.readouterr().out
    written = pd.read_csv("reports/training/stylegan_attributes/attributes.csv")
    assert (written["n_called"] == 0).all() and (written["n_images"] == 3).all()


def test_attributes_that_were_not_found_yet_are_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="dvc repro find_attributes@stylegan"):
        Attributes.open(tmp_path / "stylegan", torch.device("cpu"))

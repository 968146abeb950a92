"""The stage train_classifier with a classifier of the user's: the same files as of a trained one, or a refusal."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from flipside.classifiers.importing import ForeignParams
from flipside.classifiers.networks.backbones import load_classifier, predict_logits
from flipside.classifiers.networks.foreign import build_network
from flipside.core.files import read_json
from flipside.core.params import ParamsError
from flipside.core.runtime import Runtime, RuntimeParams
from tests.classifiers.foreign_fixture import BLOCKS, FOLDER, run_stage, save, write_classifier, write_slices

MODEL = Path("models/classifiers/classifier")
LAYERS = {  # of each size the last on which the answer rests; of the transformer what its class token reads last
    "convnext": ["stages.1.downsample.0", "stages.2.downsample.0", "stages.3.downsample.0", "norm_pre"],
    "vit": ["blocks.1.norm1"], "resnet": ["relu", "layer1", "layer2", "layer3", "layer4"], "torchscript": [],
    "python": ["2", "4"],
}
INSIDE = {"convnext": (16, "head.fc", False), "vit": (16, "head", False), "resnet": (512, "fc", True),
          "torchscript": (2, None, False), "python": (8, "7", True)}
CODE = {"python": {"module.py"}, "torchscript": {"module.ts"}}


@pytest.fixture
def slices(tmp_path, monkeypatch):
    """Images (N,H,W) in the store of a project of the test's own."""
    monkeypatch.chdir(tmp_path)
    write_slices()
    return torch.as_tensor(np.load("data/slices/images.npy"))


def logits_by_hand(block, images):
    """Logits (N,) of abnormal of slices (N,H,W) in [-1,1], from the network and its weights alone."""
    file = FOLDER / block["checkpoint"]
    network = build_network(ForeignParams(**block).form(1), FOLDER / block.get("module", block["checkpoint"]))
    if file.suffix == ".safetensors":
        network.load_state_dict(load_file(file))
    elif block["source"] != "torchscript":
        state = torch.load(file, weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    images = (images[:, None].float() + 1) / 2
    if "input_size" in block:
        images = F.interpolate(images, (block["input_size"],) * 2, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(block[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        answers = network.eval()((images.expand(-1, block["channels"], -1, -1) - mean) / std).double()
    binary = block["class_index"] == "binary"
    logits = answers[:, 0] if binary else answers.softmax(dim=1)[:, block["class_index"]].logit()
    return (logits if block["class_is"] == "abnormal" else -logits).float()


@pytest.mark.parametrize("kind", BLOCKS)
def test_it_leaves_what_a_trained_one_leaves(kind, slices, monkeypatch, capsys):
    block = write_classifier(kind)
    run_stage(block, monkeypatch)
    assert {file.name for file in MODEL.iterdir()} == {"model.safetensors", "model.json"} | CODE.get(kind, set())
    report = Path("reports/training/classifier")
    assert all((report / name).is_file() for name in ("parameters.json", "roc.csv", "confusion.csv"))
    found = read_json("reports/classifier.json")
    assert {"auc", "val_auc", "accuracy", "f1", "ece", "n"} <= found.keys()
    assert ("no feature maps: a TorchScript file" in capsys.readouterr().out) == (kind == "torchscript")
    expected = logits_by_hand(block, slices)
    shutil.rmtree(FOLDER)  # what comes later needs the model's folder alone
    classifier = load_classifier(MODEL, Runtime(RuntimeParams(device="cpu", precision="float32", threads=1)), 1)
    logits = predict_logits(classifier, slices, Runtime(RuntimeParams(device="cpu", precision="float32", threads=1)))
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
    assert 0 < (logits >= 0).sum() < len(logits)
    form = read_json(MODEL / "model.json")["architecture"]
    assert form["layers"] == LAYERS[kind]
    assert (form["feature_count"], form["head"], form["head_takes_means"]) == INSIDE[kind]
    view = classifier.view(slices[:3, None].float())
    assert [len(maps) for maps in view.maps] == [3] * len(LAYERS[kind])
    assert view.features.shape == (3, classifier.feature_count)
    torch.testing.assert_close(view.logits, logits[:3], atol=1e-4, rtol=1e-4)


def test_a_judge_is_imported_too_and_a_layer_is_chosen_by_name(slices, monkeypatch):
    block = write_classifier("python") | {"layer": "0"}
    run_stage(block, monkeypatch, role="judge")
    assert read_json("models/classifiers/judge/model.json")["architecture"]["layers"] == ["0"]
    assert "auc" in read_json("reports/judge.json")


def without(*names):
    def edit(state):
        return {name: tensor for name, tensor in state.items() if name not in names}
    return edit


@pytest.mark.parametrize(("changes", "edit", "message"), [
    ({"checkpoint": "gone.pt"}, None, r"`checkpoint` data/foreign/gone.pt not found: put it into the folder"),
    ({"module": "gone.py"}, None, r"`module` data/foreign/gone.py not found"),
    ({"architecture": "biuld"}, None, r"`architecture` 'biuld' .*it has no function 'biuld', but build"),
    ({"options": {"width": 16}}, None, r"module\.0\.weight has the shape|0\.weight has the shape \(8, 1, 3, 3\), the "
                                       r"network's has \(16, 1, 3, 3\): are `architecture`, `options`, `classes`"),
    ({}, without("7.bias", "7.weight"), r"`checkpoint` .*net.pt lacks 7.weight and 1 more of the \d+ tensors"),
    ({}, lambda state: state | {"8.weight": torch.zeros(1)}, r"`checkpoint` .*net.pt has 8.weight, which the network"),
    ({}, lambda state: state | {"0.bias": torch.full((8,), torch.nan)}, r"0.bias holds NaN or infinity"),
    ({}, lambda state: {"network": nn.Linear(1, 1)}, r"`checkpoint` .*net.pt holds no plain weights"),
    ({}, lambda state: state | {"7.weight": torch.zeros(1, 8)}, r"gives the same answer \(.*\) to all 16 slices"),
    ({"classes": 2, "class_index": 1}, None, r"`classes` is 2, but the network's answer to 4 images has the shape "
                                             r"\(4, 1\), expected \(4, 2\)"),
    ({"layer": "9"}, None, r"`layer` is '9', which the network hasn't; its layers are: 0, 1, 2"),
    ({"layer": "7"}, None, r"`layer` '7' gives no map of more than one cell .*; these do: 0, 1, 2, 3, 4"),
    ({"channels": 3}, None, r"the network fails on images of 3 x \(32, 32\) pixels .*`input_size` and `channels`"),
])
def test_what_cant_be_explained_is_refused_by_its_key(changes, edit, message, slices, monkeypatch):
    block = write_classifier("python")
    if edit is not None:
        file = FOLDER / block["checkpoint"]
        state = torch.load(file, weights_only=True)["state_dict"]
        torch.save(edit({name.removeprefix("module."): tensor for name, tensor in state.items()}), file)
    with pytest.raises((ValueError, FileNotFoundError), match=r"(?s)params.yaml: classifiers.classifier: .*" + message):
        run_stage(block | changes, monkeypatch)
    assert not MODEL.exists()


def test_a_class_that_is_the_wrong_way_round_is_refused_with_the_right_one(slices, monkeypatch):
    block = write_classifier("python")
    wrong = {"abnormal": "healthy", "healthy": "abnormal"}[block["class_is"]]
    with pytest.raises(ValueError, match=r"AUC 0\.\d+ on 16 slices of the splits val and test: the network ranks "
                                         rf"healthy .*`class_index: binary` with `class_is: {block['class_is']}`"):
        run_stage(block | {"class_is": wrong}, monkeypatch)


def test_probabilities_and_strides_that_arent_there_are_refused(slices, monkeypatch):
    block = write_classifier("python")
    module = FOLDER / "net.py"
    module.write_text(module.read_text().replace("nn.Linear(width, 1))", "nn.Linear(width, 1), nn.Sigmoid())"))
    with pytest.raises(ValueError, match="all answers are between 0 and 1, so they are probabilities; the logits"):
        run_stage(block, monkeypatch)
    block, methods = write_classifier("python"), {"rise": {}, "layer_cam": {"strides": [2, 8]}, "cam": {}}
    with pytest.raises(ValueError, match=r"layer_cam.strides: it has no feature maps of stride 8, but of 2, 4: choose"):
        run_stage(block, monkeypatch, methods)


def test_all_methods_that_cant_explain_it_are_named_at_once(slices, monkeypatch):
    methods = {"rise": {}, "layer_cam": {"strides": [4]}, "grad_cam": {"strides": "last"}, "cam": {}}
    with pytest.raises(ValueError, match=r"cam, grad_cam, layer_cam: take out, .* no feature maps: a TorchScript file"):
        run_stage(write_classifier("torchscript"), monkeypatch, methods)
    with pytest.raises(ValueError, match=r"cam: take it out, as no linear .*\n  layer_cam.strides: .* 4, but of 8:"):
        run_stage(write_classifier("vit"), monkeypatch, methods)
    assert not MODEL.exists()


@pytest.mark.parametrize(("changes", "message"), [
    ({"source": "timmm"}, r"`classifiers.classifier.source` is 'timmm'"),
    ({"chekpoint": "x"}, r"unknown parameter `classifiers.classifier.chekpoint`; known are: source, pretraining, ch"),
    ({"classes": 2}, r"`class_index: binary` doesn't go with `classes: 2`"),
    ({"classes": 2, "class_index": 2}, r"`class_index: 2` is beyond `classes: 2`, it counts from 0"),
    ({"architecture": None}, r"`source: python` needs `architecture`: the function of `module`"),
    ({"mean": [0.1, 0.2]}, r"`mean` has 2 numbers for 1 `channels`"),
])
def test_a_block_that_makes_no_sense_is_refused_by_its_key(changes, message, slices, monkeypatch):
    block = {"pretraining": str(FOLDER), "class_index": "binary"} | BLOCKS["python"] | changes
    block = {key: value for key, value in block.items() if value is not None}
    with pytest.raises(ParamsError, match=message):
        run_stage(block, monkeypatch)


def test_every_source_names_a_wrong_file(slices, monkeypatch):
    block = write_classifier("torchscript")
    save(nn.Linear(1, 1), FOLDER / "plain.pt")
    for changes, message in (
            ({"checkpoint": "plain.pt"}, "`checkpoint` .*plain.pt is no TorchScript archive"),
            ({"source": "torchvision", "architecture": "resnet", "channels": 3, "checkpoint": "plain.pt"},
             r"`architecture` 'resnet' with `options` \{\} can't be built from torchvision"),
            ({"source": "timm", "architecture": "vitt", "checkpoint": "plain.pt"},
             r"`architecture` 'vitt' with `options` \{\} can't be built from timm")):
        with pytest.raises(ValueError, match=message):
            run_stage(block | changes, monkeypatch)

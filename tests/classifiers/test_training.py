"""Training of classifiers: it learns, balances, stops early, keeps the best epoch, and resumes to the same bytes."""

import pytest
import torch

from flipside.classifiers import training
from flipside.classifiers.networks.backbones import build_classifier, predict_logits
from flipside.classifiers.scores import classification_metrics, confusion_table, height_auc, roc_table
from flipside.core.checkpoint import Scratch
from flipside.core.runtime import Runtime, RuntimeParams, draw_rows, generator_for
from tests.killed import dies_at

BASE = {
    "architecture": "small_resnet", "width": 8, "pretrained": False, "pretraining": "data/slices", "seed_offset": 0,
    "epochs": 4,
    "steps_per_epoch": 8, "batch_size": 16, "learning_rate": 5e-3, "weight_decay": 0.0, "schedule": "one_cycle",
    "patience": 10, "balance": "sampler", "augmentation": [{"name": "horizontal_flip", "probability": 0.5}],
}


def runtime():
    return Runtime(RuntimeParams(device="cpu", precision="auto", threads=1))


def dataset(count=64, seed=0):
    images = torch.rand(count, 16, 16, generator=generator_for(seed)) * 0.4 - 0.8
    labels = (torch.arange(count) % 4 == 0).float()
    images[labels > 0, 6:10, 6:10] = 0.8
    return images.half(), labels


def run(tmp_path, monkeypatch, name="run", **changes):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    params = training.ClassifierParams(**{**BASE, **changes})
    classifier = build_classifier(params.architecture, params.width, False)
    scratch = Scratch(name, params.model_dump())
    result = training.train(classifier, params, 7, dataset(), dataset(32, 1), runtime(), scratch)
    return classifier, result


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
def test_learns_a_bright_square(tmp_path, monkeypatch, schedule):
    classifier, result = run(tmp_path, monkeypatch, schedule=schedule, epochs=8)
    images, labels = dataset(40, 2)
    assert classification_metrics(predict_logits(classifier, images, runtime()), labels)["auc"] > 0.95
    assert result["best"]["val_loss"] == min(row["val_loss"] for row in result["history"])


def test_the_weights_kept_are_those_of_the_best_epoch(tmp_path, monkeypatch):
    classifier, result = run(tmp_path, monkeypatch, schedule="plateau", learning_rate=0.05, epochs=6)
    images, labels = dataset(32, 1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(predict_logits(classifier, images, runtime()), labels)
    assert loss.item() == pytest.approx(result["best"]["val_loss"], rel=1e-4)


def test_early_stopping(tmp_path, monkeypatch):
    history = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.4}, {"epoch": 3, "val_loss": 0.6}]
    assert not training.stopped_early(history, patience=2)
    assert training.stopped_early([*history, {"epoch": 4, "val_loss": 0.6}], patience=2)


def test_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    straight, straight_result = run(tmp_path, monkeypatch, "straight", schedule="plateau")
    with dies_at(3, training, "train_epoch"):
        run(tmp_path, monkeypatch, "killed", schedule="plateau")
    resumed, resumed_result = run(tmp_path, monkeypatch, "killed", schedule="plateau")
    assert resumed_result == straight_result
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_balanced_by_height_the_height_tells_nothing():
    heights = torch.linspace(0, 1, 4000)
    labels = ((heights > 0.4) & (heights < 0.6) & (torch.arange(4000) % 4 == 0)).float()  # in the middle alone
    weights = training.height_weights(labels, heights)
    rows = torch.multinomial(weights, 20000, replacement=True, generator=generator_for(0))
    middle = (heights[rows] > 0.42) & (heights[rows] < 0.58)
    assert labels[rows][middle].mean().item() == pytest.approx(0.5, abs=0.03)
    outside = ((heights[rows] < 0.3) | (heights[rows] > 0.7)).float().mean().item()
    assert 0.03 < outside < 0.2  # rarer than among all slices, but seen: 0.6 of them are there


def test_the_height_alone_can_tell_the_labels_apart():
    heights = torch.linspace(0, 1, 400)
    middle, alternating = ((heights > 0.4) & (heights < 0.6)).float(), (torch.arange(400) % 2).float()
    assert height_auc((middle, heights), (middle, heights)) > 0.99
    assert height_auc((alternating, heights), (alternating, heights)) == pytest.approx(0.5, abs=0.02)
    assert height_auc((middle, torch.full((400,), 0.5)), (middle, heights)) == 0.5  # no heights known in training


def test_sampler_balances_the_classes():
    labels = torch.zeros(100)
    labels[:5] = 1
    rows = draw_rows(labels, 2000, "sampler", generator_for(0))
    assert labels[rows].mean().item() == pytest.approx(0.5, abs=0.05)
    rows = draw_rows(labels, 2000, "none", generator_for(0))
    assert labels[rows].mean().item() == pytest.approx(0.05, abs=0.03)
    assert not labels[5:][draw_rows(labels[5:] > 0, 20, "sampler", generator_for(0))].any()  # one class alone


def test_infinite_loss_is_named(tmp_path, monkeypatch):
    with pytest.raises(FloatingPointError, match="bce"):
        run(tmp_path, monkeypatch, learning_rate=1e30)


def test_metrics_of_a_perfect_and_an_unsure_classifier():
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])
    metrics = classification_metrics(torch.tensor([-9.0, -9.0, 9.0, 9.0]), labels)
    assert metrics["auc"] == metrics["accuracy"] == metrics["f1"] == 1.0
    assert metrics["ece"] == pytest.approx(0.0, abs=1e-3)
    assert (metrics["n"], metrics["n_abnormal"], metrics["n_healthy"]) == (4, 2, 2)
    with pytest.raises(ValueError, match="both classes"):
        classification_metrics(torch.zeros(2), torch.zeros(2))


def test_tables_for_the_plots():
    logits, labels = torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, 0.0])
    roc = roc_table(logits, labels)
    assert roc.iloc[0].tolist() == [0.0, 0.0] and roc.iloc[-1].tolist() == [1.0, 1.0]
    assert confusion_table(logits, labels).to_dict("list") == {
        "actual": ["healthy", "abnormal", "healthy"], "predicted": ["healthy", "abnormal", "abnormal"]}

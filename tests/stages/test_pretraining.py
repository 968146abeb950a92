"""The stage train_classifier with and without the patches of a strongly supervised run."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from flipside.core.files import read_json
from flipside.core.store import INDEX_COLUMNS, write_store
from stages import train_classifier
from tests.classifiers.test_training import BASE


def write(path, size, seed):
    """A store of squares, bright in half of the images, in all splits."""
    count = 48
    labels = np.arange(count) % 2
    images = np.random.default_rng(seed).uniform(-0.8, -0.4, (count, size, size))
    images[labels == 1, 3:7, 3:7] = 0.8
    index = pd.DataFrame({column: [0] * count for column in INDEX_COLUMNS}).assign(
        slice_id=[f"s{n}" for n in range(count)], patient_id=[f"p{n // 4}" for n in range(count)], label=labels,
        split=np.repeat(["train", "val", "test"], count // 3))
    write_store(path, images.astype(np.float16), np.ones(images.shape, np.uint8), index)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage", "--role", "classifier"])
    write("data/slices", 16, 0)
    yield tmp_path
    torch.set_flush_denormal(False)  # which a stage switches on for its process


def train(**changes):
    params = {"seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
              "classifiers": {"classifier": BASE | {"epochs": 2, "steps_per_epoch": 3} | changes}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    train_classifier.main()
    return Path("models/classifiers/classifier/model.safetensors").read_bytes()


def test_patches_come_first_and_the_log_and_the_model_say_so(folder, capsys):
    plain = train()
    assert "STRONG" not in capsys.readouterr().out  # and there is no data/patches
    assert "strongly_supervised" not in read_json("reports/classifier.json")
    write("data/patches", 8, 1)
    assert train() == plain  # they are not looked at
    capsys.readouterr()
    shown = train(pretraining="data/patches")
    assert shown != plain
    assert "STRONG SUPERVISION, pre-trained on 48 patches" in capsys.readouterr().out
    assert read_json("reports/classifier.json")["strongly_supervised"] == 1
    assert read_json("models/classifiers/classifier/model.json")["parameters"]["pretraining"] == "data/patches"
    assert train(pretraining="data/patches") == shown
    assert not list(Path(".scratch").rglob("state.pt"))


def test_without_the_patches_it_stops(folder):
    with pytest.raises(ValueError, match="data/patches/images.npy not found"):
        train(pretraining="data/patches")

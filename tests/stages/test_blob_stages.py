"""train_encoder, invert and explain@tace one after the other on a small store: files, numbers, and refusals."""

import sys
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from flipside.artifacts.explanations import Explanations
from flipside.core.checkpoint import read_description, save_model
from flipside.core.files import read_json
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.generators.blobgan import BlobGAN, BlobGANParams
from flipside.methods.base import explain_slices
from flipside.methods.inverting import invert_slices
from flipside.methods.latent.latents import Latents
from stages import explain, invert, train_encoder
from tests.generators.toys import BLOBGAN, ENCODER
from tests.killed import dies_at
from tests.methods.conftest import PARAMS

SPLITS = ["train", "val", "test", "test", "train", "test", "val", "test", "train"]


@pytest.fixture
def folder(tmp_path, monkeypatch, planted_nine, classifier):
    """A root with nine slices, a generator that has learnt nothing and the toy classifier."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load(PARAMS.read_text())
    inversion = params["inversions"]["blobgan"] | {"steps": 3, "batch_size": 4}
    methods = {"tace": params["methods"]["tace"] | {"steps": 3, "first_steps": 3}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({
        "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
        "explain": {"batch_size": 4, "splits": ["val", "test"]}, "sanity": {"slices": 2, "draws": 1, "threshold": 0.8},
        "encoders": {"blobgan": ENCODER},
        "inversions": {"blobgan": inversion}, "methods": methods}))
    images = planted_nine[:, 0].numpy().astype(np.float16)
    index = pd.DataFrame({column: [0] * len(SPLITS) for column in INDEX_COLUMNS})
    write_store("data/slices", images, np.ones(images.shape, np.uint8),
                index.assign(slice_id=[f"slice_{n}" for n in range(len(SPLITS))], split=SPLITS))
    torch.manual_seed(0)
    chosen = BlobGANParams(**BLOBGAN | {"size_in": 8, "blob_area": 0.005})
    architecture = BlobGAN.architecture_of(chosen, classifier)
    save_model("models/generators/blobgan", BlobGAN.build(architecture), {"architecture": architecture})
    save_model("models/classifiers/classifier", classifier, {})
    for module in (train_encoder, invert_slices, explain_slices):
        monkeypatch.setattr(module, "load_classifier", lambda path, runtime, channels: classifier)
    yield tmp_path
    torch.set_flush_denormal(False)  # which a stage switches on for its process


def run(stage, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    stage.main()


def test_the_branch_from_the_generator_to_a_counterfactual(folder, monkeypatch, planted_nine):
    run(train_encoder, monkeypatch, "--generator", "blobgan")
    described = read_description("models/encoders/blobgan")
    assert described["architecture"]["layout_width"] == 16 and described["perceptual"] in ("perceptual_clf", "lpips")
    assert read_json("reports/training/blobgan_encoder/timing.json")["steps"] == 12

    run(invert, monkeypatch, "--generator", "blobgan")
    whole = pd.read_csv("data/latents/blobgan/index.csv")
    with dies_at(2, invert_slices, "invert"):
        run(invert, monkeypatch, "--generator", "blobgan")
    with mock.patch.object(invert_slices, "invert", wraps=invert_slices.invert) as counted:
        run(invert, monkeypatch, "--generator", "blobgan")
    assert counted.call_count == 1  # the second batch: nothing twice
    pd.testing.assert_frame_equal(pd.read_csv("data/latents/blobgan/index.csv"), whole)
    latents = Latents.open("data/latents/blobgan")
    assert set(latents.position) == {1, 2, 3, 5, 6, 7} and latents.layout.area == 0.005
    assert {file.name for file in (folder / "data/latents/blobgan").iterdir()} == {
        "val.safetensors", "test.safetensors", "model.safetensors", "model.json", "index.csv", "timing.json"}
    index = pd.read_csv("data/latents/blobgan/index.csv")
    assert sorted(index["row"]) == [1, 2, 3, 5, 6, 7]
    generator = BlobGAN.build(read_description("models/generators/blobgan")["architecture"])
    generator.load_state_dict(load_file("models/generators/blobgan/model.safetensors"))
    with torch.no_grad():
        made = generator.render(latents.of(torch.tensor([5]), torch.device("cpu")))
    error = float((made[0, 0] - planted_nine[5, 0]).abs().mean())
    assert float(index.loc[index["row"] == 5, "absolute_error"].iloc[0]) == pytest.approx(error, rel=1e-2)
    assert latents.timing["images"] == 6 and 0 <= latents.timing["decision_kept"] <= 1

    run(explain, monkeypatch, "--method", "tace")
    written = Explanations.open("data/explanations/tace")
    assert written.timing["seconds_per_image"] > latents.timing["seconds_per_image"]  # the inversion counts
    stored = planted_nine[[1, 2, 3, 5, 6, 7], 0].numpy().astype(np.float16)
    outside = np.array(written.roi) == 0
    assert outside.any() and (~outside).any()
    np.testing.assert_array_equal(np.array(written.counterfactual)[outside], stored[outside])


def test_an_encoder_that_learnt_with_its_generator_goes_on_from_there(folder, monkeypatch):
    values = yaml.safe_load((folder / "params.yaml").read_text())
    for phase in ("pretrain", "finetune"):
        values["encoders"]["blobgan"][phase]["steps"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    run(train_encoder, monkeypatch, "--generator", "blobgan")
    own, whole = (load_file(f"models/{kind}/blobgan/model.safetensors") for kind in ("encoders", "generators"))
    assert own and all(torch.equal(value, whole[f"encoder.{name}"]) for name, value in own.items())

"""TACE's table 1: what is drawn, what is encoded, and which numbers are absent without their weights."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from flipside.core.checkpoint import save_model
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.generators.base.loading import find_generator, load_generator
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.published import generator_table
from tests.generators.toys import BLOBGAN, STYLEGAN
from tests.methods.conftest import planted_images


@pytest.fixture
def folder(tmp_path, monkeypatch, classifier):
    """Twelve slices, nine of them test, and both generators with an encoder, none of which has learnt anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no_weights"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({
        "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
        "generators": {"coin": {}, "blobgan": {}, "stylegan": {}},
        "realism": {"batch_size": 4, "kid_subset_size": 4, "kid_subsets": 2}}))
    images = planted_images(12)[0][:, 0].numpy().astype(np.float16)
    index = pd.DataFrame({column: [0] * 12 for column in INDEX_COLUMNS})
    write_store("data/slices", images, np.ones(images.shape, np.uint8), index.assign(
        slice_id=[f"slice_{n}" for n in range(12)], split=["train"] * 3 + ["test"] * 9))
    torch.manual_seed(0)
    for name, params in (("blobgan", BLOBGAN), ("stylegan", STYLEGAN)):
        kind = find_generator(name)
        architecture = kind.architecture_of(kind.Params(**params | {"size_in": 8}), classifier)
        save_model(f"models/generators/{name}", kind.build(architecture),
                   {"architecture": architecture, "parameters": {"steps": 1234}})
        if name == "blobgan":
            save_model("models/encoders/blobgan", build_encoder(architecture), {"architecture": architecture})
    monkeypatch.setattr(generator_table, "load_classifier", lambda path, runtime, channels: classifier)
    yield tmp_path
    torch.set_flush_denormal(False)  # which the command switches on for its process


def rows(text):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_both_generators_stand_beside_the_published_numbers(folder):
    text = generator_table.generator_table()
    found = rows(text)
    assert set(found) == {"StyleGAN", "BlobGAN"}
    for row in found.values():
        assert row["steps"] == "1234" and row["N"] == "9"
        assert float(row["FD, classifier"]) > 0 and 0 < float(row["perceptual, classifier"]) <= 4
        assert not any(name.startswith(("FID", "LPIPS")) for name in row)
    assert found["StyleGAN"]["published steps / FID / LPIPS, brain MRI"] == "108k / 81.96 / 0.46"
    assert found["BlobGAN"]["published steps / FID / LPIPS, mammograms"] == "105k / 55.02 / 0.44"
    assert "No FID: its weights are not" in text and "No LPIPS: its weights are not" in text


def test_a_generator_that_is_not_in_the_parameters_has_no_numbers(folder):
    values = yaml.safe_load((folder / "params.yaml").read_text())
    del values["generators"]["stylegan"]
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    found = rows(generator_table.generator_table())
    assert found["StyleGAN"]["N"] == "–" and found["BlobGAN"]["N"] == "9"


def test_slices_are_encoded_and_images_drawn(folder, classifier, runtime):
    scans = planted_images(12)[0][3:, 0].numpy().astype(np.float16)
    drawn, again = generator_table.generated("stylegan", scans, classifier, 3, runtime, 4)
    assert drawn.shape == again.shape == scans.shape
    generator = load_generator("models/generators/stylegan", runtime)
    images = torch.as_tensor(scans).float()[:, None]
    with torch.no_grad():
        expected = generator.render(generator.encoded(images, torch.sigmoid(classifier(images)))).clamp(-1, 1)
    np.testing.assert_allclose(again, expected[:, 0].numpy(), atol=1e-4)
    assert np.abs(drawn[0] - drawn[5]).mean() > 1e-3  # another z


def test_fid_and_lpips_have_columns_of_their_own_where_they_are_measured():
    text = generator_table.table({"stylegan": ({"classifier": 1.5, "inception_2048": 80.25, "inception_64": 0.75,
                                                "perceptual_clf": 0.25, "lpips": 0.5}, 10)}, 100, 96)
    row = rows(text)["StyleGAN"]
    assert (row["FID, dims 2048"], row["FID, dims 64"], row["LPIPS"]) == ("80.25", "0.75", "0.5")
    assert "FID, dims 2048: 100 images on either side are too few" in text

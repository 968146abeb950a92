"""The inpainter's check from the slices to the figure: two stages, and the truth read by the second alone."""

import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from flipside.artifacts.probes import Probes
from flipside.artifacts.truth import write_truth
from flipside.core.files import read_json
from flipside.core.store import INDEX_COLUMNS, write_store
from stages import check_inpainter, probe_inpainter
from tests.methods.conftest import planted_images

COUNT = 12
PARAMS = {
    "seed": 3, "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
    "probe": {"hole_fraction": 0.4, "stride_fraction": 0.1, "draws": 4, "covered": 0.9},
}


@pytest.fixture
def folder(tmp_path, monkeypatch, toy_models, classifier):
    """Slices with a bright disc, every other one with it taken away; the toy inpainter among the models."""
    (tmp_path / "models").symlink_to(toy_models(probe_inpainter.INPAINTER) / "models")
    monkeypatch.chdir(tmp_path)
    images, discs = planted_images(COUNT)
    label = np.arange(COUNT) % 2
    images[label == 0] = images[label == 0].masked_fill(discs[label == 0][:, None], -0.3)
    index = pd.DataFrame({column: [0] * COUNT for column in INDEX_COLUMNS})
    index = index.assign(slice_id=[f"slice_{n}" for n in range(COUNT)], split="test", label=label)
    write_store("data/slices", images[:, 0].numpy().astype(np.float16), np.ones((COUNT, 32, 32), np.uint8), index)
    write_truth("data/truth", discs.numpy().astype(np.uint8) * label[:, None, None].astype(np.uint8))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.setattr(probe_inpainter, "load_classifier", lambda path, runtime, channels: classifier)
    monkeypatch.setattr(sys, "argv", ["stage"])
    return tmp_path


def test_inpainting_a_lesion_matters_and_healthy_tissue_does_not(folder):
    probe_inpainter.main()
    probes = Probes.open()
    assert len(probes.slices) == COUNT and set(probes.holes["side"]) == {13}
    assert probes.holes[["top", "left"]].to_numpy().max() + 13 <= 32
    check_inpainter.main()
    found = read_json("reports/inpainter.json")
    assert (found["n_abnormal"] + found["n_healthy"] + found["n_left_out"]) == COUNT and found["n_abnormal"] >= 3
    assert found["logit_shift_lesion"] < -1 and found["logit_shift_ratio"] < 0.25
    assert found["auc_lesion"] < found["auc_original"]
    assert (folder / "reports/inpainter/roc.png").stat().st_size > 5000


def test_without_lesion_masks_there_are_counts_and_a_word(folder, capsys):
    write_truth("data/truth", np.zeros((COUNT, 32, 32), np.uint8))
    probe_inpainter.main()
    check_inpainter.main()
    assert "auc_lesion" not in read_json("reports/inpainter.json")
    assert "needs lesion masks" in capsys.readouterr().out


def test_answers_to_other_slices_are_refused(folder):
    probe_inpainter.main()
    probes = Probes.open()
    Probes(probes.slices.iloc[1:], probes.holes).write()
    with pytest.raises(ValueError, match="dvc repro probe_inpainter"):
        check_inpainter.main()

"""`flipside export`: a bundle predicts as its run does, needs nothing else, and tells nothing of the training scans."""

import shutil

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flipside.cli import app
from tests.prediction.conftest import CT_AFFINE
from tests.prediction.test_predict import call, everything, table_of
from tests.scans.scans_fixture import write_nifti


def export(*arguments):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def sampled(run):
    """The run with the data of its training scans."""
    (run / "data/filtered/index.csv").write_text("slice_id,scan_id,split\n" + "".join(
        f"jane{k}_z1,jane{k},train\n" for k in range(5)))
    (run / "data/extracted").mkdir()
    np.savez(run / "data/extracted/foreground.npz", **{
        f"jane{k}": np.random.default_rng(k).normal(40, 8, 500).astype(np.float32) for k in range(5)})
    return run


def test_a_bundle_predicts_what_its_run_predicts_without_it(sampled, scans, tmp_path):
    write_nifti(scans / "mr.nii.gz", np.random.default_rng(9).gamma(2, 200, (30, 30, 6)).astype(np.int16), CT_AFFINE)
    call(scans, "-o", tmp_path / "by run", "--run", sampled)
    output = export("-o", tmp_path / "bundle", "--run", sampled)
    assert "coin on mine" in output
    shutil.rmtree(sampled)
    call(scans, "-o", tmp_path / "by bundle", "--bundle", tmp_path / "bundle")
    ours, theirs = everything(tmp_path / "by run"), everything(tmp_path / "by bundle")
    assert ours == theirs
    assert "intensity unlike" in table_of(tmp_path / "by bundle").loc["mr", "warnings"]


def test_only_what_is_exported_goes_along(sampled, tmp_path):
    export("-o", tmp_path / "bundle", "--run", sampled, "--method", "intensity", "--method", "gradient")
    files = set(everything(tmp_path / "bundle"))
    assert not any("generators" in file or "coin" in file or "octet" in file for file in files)
    assert {"README.md", "LICENCE.md", "fingerprint.json", "params.yaml", "datasets.yaml"} <= files
    for name, content in everything(tmp_path / "bundle").items():
        assert b"jane" not in content, name
    params = yaml.safe_load((tmp_path / "bundle/params.yaml").read_text())
    assert list(params["methods"]) == ["intensity", "gradient"]
    assert params["extract"]["patient_salt"] == "flipside bundle"
    with pytest.raises(ValueError, match="bundle is there already"):
        export("-o", tmp_path / "bundle", "--run", sampled)
    with pytest.raises(ValueError, match="octet searches among the latent codes"):
        export("-o", tmp_path / "other", "--run", sampled, "--method", "octet")


def test_the_card_has_data_numbers_with_intervals_and_limits(sampled, tmp_path):
    export("-o", tmp_path / "bundle", "--run", sampled)
    card = (tmp_path / "bundle/README.md").read_text()
    assert "# coin on mine" in card and "https://example.org/mine" in card and "window -100 to 300" in card
    assert "| train | 5 | 5 | 20 | 20 |" in card
    assert "0.600 (0.500 to 0.700)" in card and "auc 0.900, n 40." in card
    assert "## Limits" in card and "not a medical device" in card and "no lesion mask" in card
    assert "chosen with lesion masks of the validation part" in card
    assert "https://example.org/mine" in (tmp_path / "bundle/LICENCE.md").read_text()

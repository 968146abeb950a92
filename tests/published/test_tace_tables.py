"""TACE's tables: what N counts, success against scan and reconstruction, paired tests, and whose time it is."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluationError
from flipside.published import tace_tables


def cases(method, f_cf, perceptual):
    count = len(f_cf)
    f_x = [0.9] * (count - 1) + [0.2]  # the last slice is called healthy and counts nowhere
    return pd.DataFrame({"method": method, "slice_id": [f"s{n}" for n in range(count)], "f_x": f_x, "f_x_cf": f_cf,
                         "perceptual_clf": perceptual, "l1": [0.2] * count, "change_outside": [0.1] * count})


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """What a run with OCTET and TACE leaves, of nine slices called abnormal and one called healthy."""
    monkeypatch.chdir(tmp_path)
    octet = cases("octet", [0.1] * 9 + [0.1], [0.5 + 0.01 * n for n in range(10)])
    tace = cases("tace", [0.1] * 6 + [0.7] * 3 + [0.1], [0.2 + 0.002 * n for n in range(10)])
    Path("reports").mkdir()
    pd.concat([octet, tace]).to_csv("reports/cases.csv", index=False)
    write("reports/metrics.json", {"octet": {"perceptual_clf": 0.54, "l1": 0.1}, "tace": {"perceptual_clf": 0.21}})
    for method, table in (("octet", octet), ("tace", tace)):
        write(f"data/explanations/{method}/timing.json", {"seconds": 40.0, "images": 10, "device": "CPU, 2 threads"})
        table[["slice_id", "f_x"]].assign(steps=0).to_csv(f"data/explanations/{method}/index.csv", index=False)
    write("data/latents/blobgan/timing.json", {"seconds_per_image": 1.0})
    pd.DataFrame({"slice_id": [f"s{n}" for n in range(10)], "f_reconstruction": [0.9] * 8 + [0.3] * 2}).to_csv(
        "data/latents/blobgan/index.csv", index=False)
    needs = {"needs": "data/latents/blobgan"}
    Path("params.yaml").write_text(json.dumps({"methods": {"octet": needs, "tace": needs}}))


def write(file, content):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps(content))


def rows(capsys, monkeypatch, table):
    monkeypatch.setattr(sys, "argv", ["tace_tables", "--table", str(table)])
    tace_tables.main()
    text = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}, text


def test_success_counts_slices_called_abnormal(finished, capsys, monkeypatch):
    found, text = rows(capsys, monkeypatch, 2)
    assert found["TACE"]["N"] == "9" and found["TACE"]["SR % (95 % interval)"].startswith("66.7 (")
    assert found["TACE"]["SR % of reconstructions"].startswith("75.0 (") and "N 8" in found["TACE"][
        "SR % of reconstructions"]
    assert found["OCTET"]["SR % (95 % interval)"].startswith("100.0 (")
    assert found["OCTET"]["L1"] == "0.1" and found["TACE"]["L1"] == "–"
    assert "FID, dims 64" not in found["TACE"] and found["StylEx"]["N"] == "not run"
    assert found["TACE"]["published SR / FID / LPIPS, brain MRI"] == "84.49 / 0.54 / 0.13"
    assert "perceptual distance: mean difference -0.332, lower on 9 of 9 slices, Wilcoxon p = 0.0039" in text


def test_the_search_is_paid_by_those_that_are_turned(finished, capsys, monkeypatch):
    found, _ = rows(capsys, monkeypatch, 3)
    seconds = 1.0 + (40.0 - 10.0) / 9
    assert float(found["TACE"]["s each"]) == pytest.approx(seconds, rel=0.01)
    assert float(found["TACE"]["hours for 250"]) == pytest.approx(seconds * 250 / 3600, rel=0.01)
    assert found["TACE"]["published hours (V100)"] == "2.5"


def test_a_search_without_a_stop_is_paid_by_all(finished, capsys, monkeypatch):
    index = pd.read_csv("data/explanations/octet/index.csv").assign(steps=100)
    index.to_csv("data/explanations/octet/index.csv", index=False)
    found, _ = rows(capsys, monkeypatch, 3)
    assert found["OCTET"]["N"] == "10" and float(found["OCTET"]["s each"]) == pytest.approx(1.0 + 3.0, rel=0.01)
    assert found["TACE"]["N"] == "9"


def test_a_figure_of_other_slices_than_n_says_of_how_many(finished, capsys, monkeypatch):
    write("reports/metrics.json", {"octet": {"fd_clf": 3.0, "n_realism_real": 7, "l1": 0.1},
                                   "tace": {"fd_clf": 2.0, "n_realism_real": 9}})
    found, _ = rows(capsys, monkeypatch, 2)
    assert found["OCTET"]["FD, classifier"] == "3 (7)" and found["TACE"]["FD, classifier"] == "2"


def test_stylex_has_reconstructions_of_its_own_and_pays_for_attfind_once(finished, capsys, monkeypatch):
    table = cases("stylex", [0.1] * 4 + [0.7] * 5 + [0.1], [0.6] * 10)
    both = pd.concat([pd.read_csv("reports/cases.csv"), table])
    both.to_csv("reports/cases.csv", index=False)
    write("reports/metrics.json", {name: {"perceptual_clf": 0.5} for name in ("octet", "tace", "stylex")})
    write("data/explanations/stylex/timing.json", {"seconds": 18.0, "images": 10, "device": "CPU, 2 threads"})
    table[["slice_id", "f_x"]].assign(steps=[1] * 9 + [0], f_reconstruction=[0.2] * 2 + [0.9] * 8).to_csv(
        "data/explanations/stylex/index.csv", index=False)
    write("reports/training/stylegan_attributes/timing.json", {"seconds": 3100.0})
    params = json.loads(Path("params.yaml").read_text())
    params["methods"]["stylex"] = {"needs": "models/attributes/stylegan"}
    write("params.yaml", params)
    found, text = rows(capsys, monkeypatch, 2)
    assert found["StylEx"]["N"] == "9" and found["StylEx"]["SR % (95 % interval)"].startswith("44.4 (")
    assert found["StylEx"]["SR % of reconstructions"].startswith("28.6 (") and "N 7" in found["StylEx"][
        "SR % of reconstructions"]
    assert "TACE against StylEx, perceptual distance" in text
    found, _ = rows(capsys, monkeypatch, 3)
    assert float(found["StylEx"]["s each"]) == pytest.approx(2.0, rel=0.01)
    assert float(found["StylEx"]["hours for 250"]) == pytest.approx((3100 + 250 * 2) / 3600, rel=0.01)
    assert found["TACE"]["s before (AttFind)"] == "0"


def test_latents_of_other_slices_are_refused(finished, monkeypatch):
    pd.DataFrame({"slice_id": ["s0"], "f_reconstruction": [0.9]}).to_csv("data/latents/blobgan/index.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["tace_tables", "--table", "2"])
    with pytest.raises(EvaluationError, match="lacks 8 slices"):
        tace_tables.main()

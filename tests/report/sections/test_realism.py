"""Distances between scans and counterfactuals, and why they are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flipside.metrics import registry
from flipside.metrics.families import realism
from flipside.report import tables
from stages import report
from tests.report.report_fixture import edit_json


def test_distances_that_were_not_measured_are_listed_with_the_reason_and_doubtful_ones_starred(project):
    report.main()
    page = (project / "reports/report.html").read_text()
    section = page[page.index('<section id="realism">'):page.index('<section id="classifiers">')]
    rows = {row[0]: row[1:] for row in re.findall(
        r'<th scope="row">(.*?) [↑↓]</th><td title="(.*?)">(.*?)</td><td>(.*?)</td>', section)}
    assert rows["FD clf"] == ("FD clf of coin, n = 5. 5 counterfactuals for 96 features", "1.500*", "44.250")
    assert rows["perceptual clf"][1:] == ("0.125", tables.MISSING)
    assert set(rows) == {"L1", "SSIM", "perceptual clf", "FD clf"}  # what nobody has is below
    assert "<b>FID 64, FID 64 (all slices), FID 768</b> not measured: weights fid.pth not found" in section
    assert "<b>LPIPS</b> not measured: weights lpi.pth not found" in section
    assert "<b>FD clf</b> * read with care: 5 counterfactuals for 96 features" in section
    Path("data/realism/coin.json").unlink()
    with pytest.raises(FileNotFoundError, match="data/realism/coin.json not found.*measure_realism"):
        report.main()


def test_every_distance_is_better_when_small_and_knows_its_count():
    for name in (*realism.DISTANCES, "fid_768_coin", "fid_768_both_directions", "fd_clf_unchanged", "perceptual_clf",
                 "lpips"):
        assert not registry.higher_is_better(name) and registry.METRICS[name].needs_counterfactual
    values = {"n_realism": 3, "n_realism_coin": 9, "n_realism_both_directions": 7, "n_success_rate": 4}
    names = ("kid", "fid_768", "fid_768_coin", "fid_768_both_directions", "lpips")
    assert [registry.count(values, name) for name in names] == [3, 3, 9, 7, 4]


def test_a_distance_that_one_method_lacks_says_why(project):
    edit_json(project / "reports/metrics.json", lambda content: content["rise"].update(lpips=0.5))
    report.main()
    page = (project / "reports/report.html").read_text()
    assert f'title="not measured: weights lpi.pth not found">{tables.MISSING}</td>' in page

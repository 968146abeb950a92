"""The table of all metrics."""

from __future__ import annotations

import json
import re

from flipside.report import tables
from stages import report
from tests.report.report_fixture import edit_json


def test_every_metric_has_its_place_and_intervals_stand_with_their_metric(project):
    edit_json(project / "reports/metrics.json", lambda content: content["coin"].update(
        {"hd95_mm_val": 7.25, "fid_2048": 61.5, "wilcoxon_p_holm": 1.4e-35, "brand_new": 3,
         "iou_label_free_difference": 0.1}))
    report.main()
    page = (project / "reports/report.html").read_text()
    table = page[page.index('<table class="all">'):]
    table = table[:table.index("</table>")]
    place = {name: table.index(f">{name}<") for name in
             ("iou_label_free", "hd95_mm_val", "fid_2048", "iou_label_free_difference", "wilcoxon_p_holm",
              "n_cases", "brand_new")}
    assert list(place.values()) == sorted(place.values())  # theme after theme
    assert "iou_label_free_ci_low" not in table and "1.4e-35" in table and ">7.250<" in table
    values = json.loads((project / "reports/metrics.json").read_text())["coin"]
    assert f"{values['iou_label_free_ci_low']:.3f}–{values['iou_label_free_ci_high']:.3f}" in table


def test_missing_optional_metrics_show_a_dash_with_the_reason(project):
    def strip(content):
        for values in content.values():
            for name in ("pixel_ap", "iou_oracle", "iou_label_free_ci_low"):
                del values[name]
        content["rise"].pop("iou_label_free")
    edit_json(project / "reports/metrics.json", strip)
    report.main()
    page = (project / "reports/report.html").read_text()
    reason = "needs a counterfactual image; this method gives an attribution map only"
    assert f'title="{reason}">{tables.MISSING}</td>' in page
    assert f'title="not computed for this method in reports/metrics.json">{tables.MISSING}</td>' in page
    assert re.findall(r'<th scope="row"><a href="#method-(\w+)"', page) == ["coin", "random", "rise"]

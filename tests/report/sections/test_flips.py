"""Flips under a bound, as the page shows them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.truth import write_truth
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from flipside.report.sections.classifiers import describe_architectures
from flipside.report.sections.flips import Flips
from stages import report
from tests.report.report_fixture import REPORT, build_project, edit_json


def build(root, monkeypatch):
    """Two methods and a control that make counterfactuals; the control destroys what it changes."""
    images = np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24))
    build_project(root, images, {"coin": 0.8, "tace": 0.5, "blur": 0.1, "rise": 0.3}, ("coin", "tace", "blur"),
                  ("blur",))
    monkeypatch.chdir(root)
    monkeypatch.setattr("sys.argv", ["report"])
    edit_json(root / "reports/metrics.json", lambda metrics: (
        metrics["tace"].update(bounded_flip_rate=0.75, flips_beyond_bound=0.25, n_flips_beyond_bound=4),
        metrics["blur"].update(bounded_flip_rate=0.0, flips_beyond_bound=1.0)))
    file = Path("reports/cases.csv")
    cases = pd.read_csv(file)
    cases.loc[cases["method"] == "blur", "change_to_blur"] = 1.0
    cases.to_csv(file, index=False)


def test_methods_stand_in_the_order_of_their_bounded_flips_and_the_control_last_with_its_reason(tmp_path, monkeypatch):
    build(tmp_path, monkeypatch)
    section = Flips.build(read_inputs(ReportParams.model_validate(REPORT | {"controls": ["blur"]})))
    assert [row.name for row in section.rows] == [chart.title for chart in section.charts] == ["tace", "coin", "blur"]
    assert section.rows[0].text == "bounded flips 0.750, n = 6; 1 of 4 changes exceed the bound"
    assert section.rows[2].text.endswith("flips, but by destroying the image: 6 of 6 changes exceed the bound")
    for chart in section.charts:
        assert chart.drawing.count('class="behind dashed"') == 1 and chart.drawing.count('class="limit"') == 1


def test_the_leading_methods_are_shown_with_and_without_lesion_masks(tmp_path, monkeypatch):
    build(tmp_path, monkeypatch)
    for masked in (True, False):
        if not masked:  # as the stages leave a data set of labels alone
            write_truth("data/truth", np.zeros((12, 24, 24), np.uint8))
            cases = pd.read_csv("reports/cases.csv").assign(lesion_px=0)
            cases.drop(columns=[name for name in cases if name.startswith(("iou", "dice"))]).assign(
                fp_area=np.nan, iou_val=np.nan).to_csv("reports/cases.csv", index=False)
        report.main()
        page = Path("reports/report.html").read_text()
        part = page[page.index('<section id="flips">'):].split("</section>")[0]
        pictures = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="(\w+)[:,]', part)
        assert pictures == ["scan", "tace", "tace", "coin", "coin", "blur", "blur"] * 3
        assert part.count("too much") == 3 + 2 and "least changed" in part and "most changed" in part
        assert "‡" in page[page.index('<section id="ranking">'):].split("</section>")[0]


def test_without_counterfactuals_there_is_no_such_section(tmp_path, monkeypatch):
    build_project(tmp_path, np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24)), {"rise": 0.3, "cam": 0.2}, (), ())
    monkeypatch.chdir(tmp_path)
    assert Flips.build(read_inputs(ReportParams.model_validate(REPORT))) is None


def test_it_is_said_where_classifier_and_judge_are_of_one_kind(project):
    inputs = read_inputs(ReportParams.model_validate(REPORT))
    assert describe_architectures(inputs) == "The classifier is a small_resnet, the judge a resnet18."
    edit_json(project / "reports/training/judge/parameters.json",
              lambda parameters: parameters.update(architecture="small_resnet"))
    said = describe_architectures(read_inputs(ReportParams.model_validate(REPORT)))
    assert "Both are a small_resnet" in said and "`classifiers.judge.architecture`" in said

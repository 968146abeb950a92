"""What the IoU is lost to, as the page says and draws it."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from flipside.metrics.families.lost_iou import LostIou
from flipside.report.inputs import Result, read_inputs
from flipside.report.params import ReportParams
from flipside.report.sections.lost_iou import LostIous, describe_lost_iou
from tests.report.report_fixture import REPORT, edit_json

IOU, LOST = "iou_label_free", LostIou.columns


def test_rows_in_the_order_of_the_ranking_add_up_to_the_whole_bar_and_the_upper_bound_is_apart(project):
    edit_json(project / "reports/metrics.json", lambda content: content["coin"].update(upper_bound=1))
    section = LostIous.build(read_inputs(ReportParams.model_validate(REPORT)))
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert [(row.name, row.badge) for row in section.rows] == [
        ("rise", ""), ("random", "control"), ("coin", "upper bound")]
    assert section.leading[0].startswith("rise loses")  # no upper bound is spoken of, however good
    for row in section.rows:
        assert [cell.value for cell in row.cells] == [metrics[row.name][name] for name in (IOU, *LOST)]
        assert sum(cell.value for cell in row.cells) == pytest.approx(1)
        bars = re.findall(r'class="part (\w+)" x="([\d.]+)" y="2" width="([\d.]+)"', row.drawing)
        assert [name for name, _, _ in bars] == [IOU, *LOST]
        ends = [float(start) + float(length) for _, start, length in bars]
        assert [*(float(start) for _, start, _ in bars[1:]), 360] == pytest.approx(ends, abs=0.11)


def describe(*lost, **further):
    """The sentences on a method that loses so much to the parts, in their order."""
    metrics = dict(zip(LOST, lost, strict=True)) | further
    return describe_lost_iou(Result("coin", metrics, False, None, None, {}, {}, pd.DataFrame(), {}, {}))


def test_the_sentences_name_every_part_with_its_interval_and_what_would_gain_the_largest():
    assert describe(0.1, 0.05, 0.0, 0.15, lost_to_classifier_ci_low=0.1, lost_to_classifier_ci_high=0.2) == [
        "coin loses 0.300 of an IoU of 1: 0.100 to under-segmentation, 0.050 to over-segmentation, 0.150 (0.100 to "
        "0.200) to the classifier; nothing to the wrong place.",
        "The largest part goes to the classifier: a classifier that calls no slice with a lesion healthy would gain "
        "0.150 at most, all else unchanged."]
    assert "masks that mark nothing beside the lesion would gain 0.200 at most" in describe(0.1, 0.2, 0.1, 0.1)[1]
    assert describe(0.0, 0.0, 0.0, 0.0) == ["coin loses nothing: every mask is the lesion."]

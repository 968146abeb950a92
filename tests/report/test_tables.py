"""The ranked table in its forms, and the sentences that answer the question."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flipside.metrics import registry
from flipside.report import tables
from stages import report


def test_ranking_follows_each_metrics_own_direction_and_puts_missing_last():
    metrics = {"a": {"iou_val": 0.2, "l1": 0.5}, "b": {"iou_val": 0.6}, "c": {"iou_val": 0.4, "l1": 0.1}}
    assert tables.ranking(metrics, "iou_val") == ["b", "c", "a"]
    assert tables.ranking(metrics, "l1") == ["c", "a", "b"]
    assert not registry.higher_is_better("hd95_mm_val") and not registry.higher_is_better("kid_clf")
    with pytest.raises(ValueError, match="rank_by.*'nonsense'.*iou_val"):
        tables.ranking(metrics, "nonsense")


def test_the_answer_names_a_control_never_as_winner_and_says_when_intervals_overlap():
    metrics = {"coin": {"iou_val": 0.4, "iou_val_ci_low": 0.3, "iou_val_ci_high": 0.5, "n_cases": 9},
               "centre": {"iou_val": 0.45, "iou_val_ci_low": 0.4, "iou_val_ci_high": 0.5, "n_cases": 9}}
    said = " ".join(tables.answer(metrics, "iou_val", ["centre"]))
    assert "No method beats the controls" in said and "coin: 0.400 (interval 0.300 to 0.500, n = 9)" in said
    assert "intervals overlap" in said and "Next is" not in said
    metrics["coin"] |= {"iou_val": 0.9, "iou_val_ci_low": 0.8, "iou_val_ci_high": 0.95}
    metrics["rise"] = {"iou_val": 0.88, "iou_val_ci_low": 0.79, "iou_val_ci_high": 0.94}
    first, following, control = tables.answer(metrics, "iou_val", ["centre"])
    assert first.startswith("coin is first of 2 methods") and "do not overlap" in control
    assert following == "Next is rise, 0.880: the intervals overlap, the difference may be chance."


def test_an_upper_bound_is_shown_last_and_without_a_place_and_wins_nothing():
    metrics = {"supervised": {"iou_val": 0.9, "upper_bound": 1}, "coin": {"iou_val": 0.5, "n_cases": 9},
               "rise": {"iou_val": 0.3}, "blur": {"l1": 0.1}}
    assert tables.ranking(metrics, "iou_val") == ["coin", "rise", "blur", "supervised"]
    assert tables.placed(metrics, "iou_val") == {"coin": "1", "rise": "2", "blur": "3", "supervised": tables.MISSING}
    markdown = tables.markdown_table(metrics, "iou_val", ["rise"], "the run")
    row = next(line for line in markdown.splitlines() if "*(upper bound)*" in line)
    assert row.startswith(f"| {tables.MISSING} | supervised *(upper bound)* | 0.900 |")
    assert "supervised: no weakly supervised method but an upper bound" in markdown
    assert "supervised (upper bound)" in tables.plain_table(metrics, "iou_val", ["rise"])
    said = " ".join(tables.answer(metrics, "iou_val", ["rise"]))
    assert said.startswith("coin is first of 1 methods") and "supervised" not in said


def test_the_answer_goes_by_pairs_where_one_of_the_two_is_the_reference():
    def compared(value, low, high):
        return {"iou_val": 0.5 + value, "iou_val_difference": value, "iou_val_difference_ci_low": low,
                "iou_val_difference_ci_high": high}
    metrics = {"coin": {"iou_val": 0.5}, "rise": compared(-0.1, -0.14, -0.05), "centre": compared(-0.3, -0.5, 0.01)}
    _, following, control = tables.answer(metrics, "iou_val", ["centre"])
    assert following == ("Next is rise, 0.400: 0.100 less in pairs of the same slices (interval of the difference "
                         "-0.140 to -0.050).")
    assert control.endswith("0.300 less in pairs of the same slices (interval of the difference -0.500 to +0.010), "
                            "which may be chance.")
    metrics["rise"] = compared(0.1, 0.05, 0.14)
    _, following, control = tables.answer(metrics, "iou_val", ["centre"])
    assert following.startswith("Next is coin, 0.500: 0.100 less in pairs") and "-0.140 to -0.050)." in following
    assert "intervals to compare" in control  # of two methods that are both no reference


def test_markdown_and_terminal_tables_agree_with_the_metrics():
    metrics = {"rise": {"iou_val": 0.25, "n_cases": 7}, "coin": {"iou_val": 0.5, "ssim": 0.9123456, "n_cases": 7}}
    markdown = tables.markdown_table(metrics, "iou_val", ["rise"], "the run")
    rows = [line for line in markdown.splitlines() if line.startswith("| 1 ") or line.startswith("| 2 ")]
    assert rows[0].startswith("| 1 | coin | 0.500 |") and "0.912" in rows[0]
    assert "models that were trained once" in markdown
    assert rows[1].startswith("| 2 | rise *(control)* | 0.250 |") and f"| {tables.MISSING} |" in rows[1]
    assert len({line.count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    plain = tables.plain_table(metrics, "iou_val", ["rise"]).splitlines()
    assert "coin" in plain[2] and "rise (control)" in plain[3] and len(plain) == 4


def test_a_map_that_ignores_the_weights_is_marked_wherever_methods_are_ranked(project):
    metrics = {"coin": {"iou_val": 0.5, "n_cases": 7}, "rise": {"iou_val": 0.6, "sanity_randomisation_passed": 0},
               "cam": {"iou_val": 0.4, "sanity_randomisation_passed": 1}}
    for text in (tables.markdown_table(metrics, "iou_val", [], ""), tables.plain_table(metrics, "iou_val", [])):
        assert "rise †" in text and "coin †" not in text and "cam †" not in text
        assert "does not depend on the classifier's weights" in text
        assert "Not put to that test: coin, whose" in text
    assert "explain nothing of this classifier" in " ".join(tables.answer(metrics, "iou_val", []))
    unmarked = {name: {"iou_val": 0.5, "sanity_randomisation_passed": 1} for name in metrics}
    assert "†" not in tables.markdown_table(unmarked, "iou_val", [], "") and tables.warnings(unmarked) == []

    file = Path("reports/metrics.json")
    written = json.loads(file.read_text())
    written["rise"]["sanity_randomisation_passed"] = 0
    file.write_text(json.dumps(written))
    report.main()
    page = (project / "reports/report.html").read_text()
    assert re.search(r'href="#method-rise">rise</a> †', page) and not re.search(r"coin</a> †", page)
    assert "does not depend on the classifier" in page
    assert "Missing for coin: not measured: it explains with a trained generator." in page


@pytest.mark.parametrize(("patients", "told"), [(4, "83 to 89 %"), (7, "90 to 93 %"), (8, None), (30, None)])
def test_intervals_over_few_patients_come_with_their_coverage(patients, told):
    metrics = {"coin": {"iou_val": 0.5, "n_patients": patients}}
    for text in (tables.markdown_table(metrics, "iou_val", [], ""), tables.plain_table(metrics, "iou_val", [])):
        assert (f"rest on only {patients}, and are too narrow" in text) == bool(told)
        assert told is None or told in text

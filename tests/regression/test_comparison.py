"""Which differences the gate calls worse, what it never judges, and which input it refuses."""

import json
import re
from pathlib import Path

import pytest

from flipside.metrics.registry import METRICS
from flipside.regression.comparison import (
    MODEL_FILES,
    Tolerances,
    compare,
    failures,
    markdown_table,
    read_tolerances,
    read_values,
)

ROOT = Path(__file__).parents[2]
JUDGE = MODEL_FILES["judge"]


def tolerances(**methods):
    return Tolerances(methods=methods, classifier={}, judge={})


def verdicts(before, now, limits, controls=()):
    return {(row.group, row.metric): row.verdict for row in compare(before, now, limits, list(controls))}


@pytest.mark.parametrize(("metric", "before", "now", "verdict"), [
    ("iou_val", 0.60, 0.57, "worse"),
    ("iou_val", 0.60, 0.63, "better"),
    ("iou_val", 0.60, 0.58, "within tolerance"),  # exactly the tolerance, in floats a little more
    ("iou_val", 0.60, 0.579999, "worse"),
    ("iou_val", 0.60, 0.60, "within tolerance"),
    ("iou_val", None, 0.60, "new"),
    ("iou_val", 0.60, None, "gone"),
    ("fp_area_healthy", 0.10, 0.13, "worse"),  # less is better
    ("fp_area_healthy", 0.10, 0.07, "better"),
    ("fp_area_healthy", 0.10, 0.12, "within tolerance"),
    ("n_cases", 217, 10, "not gated"),
])
def test_verdict_of_one_number(metric, before, now, verdict):
    other = {"pixel_ap": 0.5}
    sides = [{"coin": other | ({} if value is None else {metric: value})} for value in (before, now)]
    limits = tolerances(iou_val=0.02, fp_area_healthy=0.02)
    assert verdicts(*sides, limits)["coin", metric] == verdict
    assert bool(failures(compare(*sides, limits, []))) == (verdict in ("worse", "gone"))


def test_a_tolerance_of_zero_judges_any_change():
    assert verdicts({"coin": {"iou_val": 0.5}}, {"coin": {"iou_val": 0.4999}}, tolerances(iou_val=0)) == {
        ("coin", "iou_val"): "worse"}


def test_a_method_that_vanished_fails_and_a_new_one_does_not():
    before, now = {"coin": {"iou_val": 0.6}, "rise": {"iou_val": 0.4}}, {"coin": {"iou_val": 0.6}}
    assert failures(compare(before, now, tolerances(iou_val=0.02), [])) == ["rise has lost all metrics"]
    assert failures(compare(now, before, tolerances(iou_val=0.02), [])) == []
    assert failures(compare(before, now, tolerances(), [])) == ["rise has lost all metrics"]
    assert failures(compare(before, now, tolerances(iou_val=0.02), ["rise"])) == ["rise has lost all metrics"]


def test_a_control_that_got_worse_does_not_fail():
    before, now = {"random": {"iou_val": 0.6}}, {"random": {"iou_val": 0.1}}
    assert failures(compare(before, now, tolerances(iou_val=0.02), ["random"])) == []
    assert "| random | iou_val ↑ | 0.6000 | 0.1000 | -0.5000 | – | not gated |" in markdown_table(
        compare(before, now, tolerances(iou_val=0.02), ["random"]), "main")


def test_the_judge_has_tolerances_of_its_own():
    limits = Tolerances(methods={}, classifier={}, judge={"auc": 0.01})
    before, now = {JUDGE: {"auc": 0.9, "n": 50}}, {JUDGE: {"auc": 0.8, "n": 40}}
    assert failures(compare(before, now, limits, [])) == [f"{JUDGE} auc is worse by 0.1 (tolerance 0.01)"]
    assert f"| {JUDGE} | auc ↑ | 0.9000 | 0.8000 | -0.1000 | 0.01 | **worse** | 50 → 40 |" in markdown_table(
        compare(before, now, limits, []), "main")


def test_failures_stand_on_top_and_unchanged_numbers_without_a_tolerance_are_counted():
    cam = {"iou_val": 0.5, "ssim": 0.3}
    before = {"cam": cam, "coin": {"iou_val": 0.5, "iou_val_ci_low": 0.4, "l1": 0.1, "n_cases": 7}}
    now = {"cam": cam, "coin": {"iou_val": 0.2, "iou_val_ci_low": 0.1, "l1": 0.2, "n_cases": 7}}
    table = markdown_table(compare(before, now, tolerances(iou_val=0.02), []), "main").splitlines()
    assert table[0] == "| method | metric | main | now | difference | tolerance | verdict | n |"
    assert table[2] == "| coin | iou_val ↑ | 0.5000 | 0.2000 | -0.3000 | 0.02 | **worse** | 7 |"
    assert table[3].startswith("| cam | iou_val ↑ |")
    assert table[4].startswith("| coin | l1 ↓ | 0.1000 | 0.2000 | +0.1000 | – | not gated |")
    assert "3 numbers without a tolerance, of which 1 changed" in table[-1]
    assert len({line.count("|") for line in table[:5]}) == 1


def test_a_tolerance_for_no_metric_is_refused():
    both = {"coin": {"iou_val": 0.5}}
    with pytest.raises(ValueError, match=r"`methods\.iou_vall` is no metric; there are: iou_val"):
        compare(both, both, tolerances(iou_vall=0.1), [])
    with pytest.raises(ValueError, match=r"`judge\.acu` is no metric; there are: auc"):
        compare({JUDGE: {"auc": 1.0}}, {}, Tolerances(methods={}, classifier={}, judge={"acu": 0.1}), [])
    compare(both, both, tolerances(cv=0.1), [])  # a known metric that no method here has


@pytest.mark.parametrize(("text", "message"), [
    ("methods: {iou_val: -0.1}\nclassifier: {}\njudge: {}", r"`methods\.iou_val`: .*greater than or equal to 0"),
    ("methods: {iou_val: a lot}\nclassifier: {}\njudge: {}", r"`methods\.iou_val`: .*number"),
    ("methods: {iou_val: .inf}\nclassifier: {}\njudge: {}", r"`methods\.iou_val`: .*finite"),
    ("methods: {}\nclassifier: {}", "`judge`: Field required"),
    ("methods: {}\nclassifier: {}\njudge: {}\nmodels: {}", "`models`: Extra"),
])
def test_wrong_tolerances_are_refused_by_name(tmp_path, text, message):
    file = tmp_path / "tolerances.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(file)) + ": " + message):
        read_tolerances(file)
    with pytest.raises(FileNotFoundError, match="absent.yaml not found"):
        read_tolerances(tmp_path / "absent.yaml")


def test_tolerances_are_the_metrics_own_where_the_file_says_nothing_else(tmp_path):
    file = tmp_path / "tolerances.yaml"
    file.write_text("methods: {iou_val: 0.5, l1: null, hausdorff_mm_p50: 3}\nclassifier: {auc: 0.2}\njudge: {}")
    limits = read_tolerances(file)
    assert limits.methods["iou_val"] == 0.5 and limits.methods["hausdorff_mm_p50"] == 3
    assert limits.methods["dice_val"] == METRICS["dice_val"].tolerance == 0.02
    assert (limits.classifier, limits.judge) == ({"auc": 0.2, "ece": 0.02}, {"auc": 0.01, "ece": 0.02})
    assert verdicts({"coin": {"l1": 0.1}}, {"coin": {"l1": 0.9}}, limits) == {("coin", "l1"): "not gated"}


def test_the_committed_tolerances_judge_the_committed_metrics():
    values = read_values(lambda file: (ROOT / file).read_text(), "now")
    limits = read_tolerances(ROOT / "tolerances.yaml")
    assert failures(compare(values, values, limits, [])) == []
    worse = {group: {name: value - 1 if name == "iou_val" else value for name, value in metrics.items()}
             for group, metrics in values.items()}
    methods = [group for group in values if group not in MODEL_FILES.values()]
    assert len(failures(compare(values, worse, limits, []))) == len(methods) > 5


@pytest.mark.parametrize(("content", "message"), [
    ('{"coin": {"cv": NaN}}', r"reports/metrics\.json \(main\): coin: `cv` is nan, expected a finite number"),
    ('{"coin": {"cv": null}}', "`cv` is None"),
    ('{"coin": {"cv": true}}', "`cv` is True"),
    ('{"coin": {"cv": "0.5"}}', "`cv` is '0.5'"),
    ('{"coin": 0.5}', "coin: expected metrics, found 0.5"),
    ("[]", r"metrics\.json \(main\): expected a mapping, found list"),
    ('{"coin": {', r"metrics\.json \(main\) is not valid JSON"),
])
def test_anything_but_finite_numbers_is_refused_by_name(content, message):
    with pytest.raises(ValueError, match=message):
        read_values(lambda file: content if file == "reports/metrics.json" else '{"auc": 1.0}', "main")


def test_metrics_of_methods_and_classifiers_are_read_side_by_side():
    models = {file: {"auc": 1} for file in MODEL_FILES.values()}
    content = {"reports/metrics.json": {"coin": {"iou_val": 0.5}}, **models}
    assert read_values(lambda file: json.dumps(content[file]), "now") == {"coin": {"iou_val": 0.5}, **models}

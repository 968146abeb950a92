"""Repetitions of a run: which count, what they say of a number, which differences stand, and what a reader sees."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from flipside.core.params import read_datasets, read_params
from flipside.core.store import SliceStore
from flipside.report import tables
from flipside.report.sureness import judge_neighbours, sentences, sureness_table
from flipside.report.trainings import EMPTY, counting, fingerprint, read_trainings
from stages import report
from tests.report.trainings_fixture import pair, repeated, write

PARAMETERS = {"dataset": "phantom", "datasets": {"phantom": {"root": "a"}, "other": {"root": "b"}}, "seed": 3,
              "generators": {"coin": {"learning_rate": 5e-05, "channels": [8, 16], "spectral_norm": True}},
              "runtime": {"device": "cpu"}, "report": {"title": "T"}}
METRICS = {"coin": {"iou_fixed": 0.70, "iou_fixed_ci_low": 0.6, "iou_fixed_ci_high": 0.8, "seconds_per_image": 0.1},
           "singla": {"iou_fixed": 0.60, "iou_fixed_ci_low": 0.5, "iou_fixed_ci_high": 0.65},
           "rise": {"iou_fixed": 0.50, "iou_fixed_ci_low": 0.45, "iou_fixed_ci_high": 0.55},
           "cam": {"iou_fixed": 0.30, "iou_fixed_ci_low": 0.25, "iou_fixed_ci_high": 0.35}}
AGAIN = {"generators": {1: {"coin": -0.05, "singla": 0.06}, 2: {"coin": 0.1, "singla": -0.02}}}
PAIRS = [pair("coin", "singla", 0.1, 0.05, 0.15), pair("singla", "rise", 0.1, 0.05, 0.15),
         pair("rise", "cam", 0.2, 0.1, 0.3)]


def made(shifts=AGAIN, pairs=PAIRS):
    return repeated(METRICS, "iou_fixed", shifts, PARAMETERS, "data", pairs)


def test_a_number_has_its_mean_and_range_over_all_trainings_the_runs_own_included():
    spread = made().spread("generators", "coin", "iou_fixed")
    assert (spread.low, spread.high, spread.mean) == pytest.approx((0.65, 0.8, 2.15 / 3))
    assert made().count("generators") == 3 and made().count("classifier") == 0
    assert tables.spread_text(made(), "generators", "coin", "iou_fixed") == "0.717 [0.650 to 0.800]"
    assert tables.markdown_cell(METRICS, "coin", "iou_fixed", made(), True) == (
        "0.700 (0.600 to 0.800)<br>mean 0.717 [0.650 to 0.800]")
    assert tables.markdown_cell(METRICS, "coin", "iou_fixed", EMPTY, False) == "0.700"


def test_a_method_that_no_training_reaches_has_no_range():
    assert made().spread("generators", "rise", "iou_fixed") is None
    assert made().spread("classifier", "coin", "iou_fixed") is None and EMPTY.spread("generators", "coin", "x") is None
    assert made().spread("generators", "coin", "no_such_metric") is None


def test_ranges_are_apart_where_every_training_of_one_is_above_every_training_of_the_other():
    trainings = made()
    assert trainings.are_apart("coin", "singla") is False  # 0.65 to 0.8 and 0.58 to 0.66
    assert trainings.are_apart("singla", "rise") is True  # 0.58 to 0.66, and 0.5 each time
    assert trainings.are_apart("rise", "cam") is None  # nothing of either was trained again
    both = made(AGAIN | {"classifier": {1: {"singla": -0.2, "cam": 0.1}}})
    assert both.are_apart("singla", "rise") is False  # a classifier turns them round
    assert both.are_apart("rise", "cam") is True and both.are_apart("coin", "singla") is False


@pytest.mark.parametrize(("patients", "shifts", "verdict"), [
    (pair("coin", "singla", 0.1, 0.05, 0.15), {}, "yes"),
    (pair("coin", "singla", 0.1, 0.05, 0.15), {"singla": 0.2}, "over patients only"),
    (pair("coin", "singla", 0.1, -0.01, 0.2), {}, "over trainings only"),
    (pair("coin", "singla", 0.1, 0.05, 0.15, p_holm=0.06), {}, "over trainings only"),
    (pair("coin", "singla", -0.1, -0.15, 0.0), {"singla": 0.2}, "no"),
    (None, {}, "over trainings only"),  # the intervals over patients overlap
])
def test_a_difference_stands_only_with_other_patients_and_other_trainings(patients, shifts, verdict):
    trainings = made({"generators": {1: {"coin": 0.01} | shifts}}, [patients] if patients else [])
    first = judge_neighbours(METRICS, "iou_fixed", trainings, 0.95)[0]
    assert (first.first, first.second, first.verdict, first.stands) == ("coin", "singla", verdict, verdict == "yes")


def test_without_intervals_nothing_is_known():
    metrics = {"coin": {"cv": 0.9}, "rise": {"cv": 0.5}, "random": {}}
    trainings = repeated(metrics, "cv", {"generators": {1: {"coin": 0.01}}}, PARAMETERS)
    assert [told.verdict for told in judge_neighbours(metrics, "cv", trainings, 0.95)] == ["not known"]


def test_the_answer_names_what_stands():
    told = sentences(METRICS, "iou_fixed", [], made(), 0.95)
    assert told == [
        "3 trainings (generators and encoders trained again, the classifier stays): IoU fixed of coin is 0.650 to "
        "0.800, mean 0.717.",
        "Of 3 differences between neighbours in the ranking 1 stands with other patients and other trainings: singla "
        "before rise."]
    assert sentences(METRICS, "iou_fixed", [], EMPTY, 0.95) == []
    table = sureness_table(METRICS, "iou_fixed", made(), 0.95).splitlines()
    assert table[0].startswith("| method | IoU fixed | over patients | 3 generators | difference to the next |")
    assert table[2].endswith("| 0.717 [0.650 to 0.800] | +0.100 (+0.050 to +0.150), p 0.010 | over patients only |")
    assert table[4].endswith("| over patients; nothing was trained again |") and table[5].endswith("| – | – |")
    assert sureness_table(METRICS, "iou_fixed", EMPTY, 0.95) == ""


@pytest.mark.parametrize(("change", "reason"), [
    (lambda parameters: parameters["generators"]["coin"].update(learning_rate=1e-4), "other parameters"),
    (lambda parameters: parameters["generators"]["coin"].update(spectral_norm=1), "other parameters"),
    (lambda parameters: parameters["datasets"]["phantom"].update(root="z"), "other parameters"),
    (lambda parameters: parameters["datasets"]["other"].update(root="z"), None),
    (lambda parameters: parameters["runtime"].update(device="cuda"), None),
    (lambda parameters: parameters["report"].update(title="Z"), None),
    (lambda parameters: parameters["generators"]["coin"].update(learning_rate="5e-05"), None),  # as DVC writes it
])
def test_repetitions_count_only_beside_a_run_of_the_same_parameters(change, reason):
    parameters = copy.deepcopy(PARAMETERS)
    change(parameters)
    assert (fingerprint(parameters) == fingerprint(PARAMETERS)) == (reason is None)
    kept, ignored = counting(made(), parameters, METRICS, "iou_fixed", "data")
    assert kept == (EMPTY if reason else made()) and (reason or "") in ignored


def test_other_slices_another_metric_and_another_run_are_told_apart():
    other = copy.deepcopy(METRICS)
    other["coin"]["iou_fixed"] = 0.71
    slower = METRICS | {"coin": METRICS["coin"] | {"seconds_per_image": 9.0}}
    assert made().misfit(PARAMETERS, slower, "iou_fixed") is None
    fewer = {"coin": METRICS["coin"]}
    for metrics, rank_by, data, reason in (
            (METRICS, "iou_fixed", "others", "other slices"), (METRICS, "cv", "data", "by iou_fixed"),
            (other, "iou_fixed", "data", "other metrics"), (fewer, "iou_fixed", "data", "other metrics")):
        kept, ignored = counting(made(), PARAMETERS, metrics, rank_by, data)
        assert kept == EMPTY and reason in ignored and "trains again" in ignored


def test_a_file_of_another_form_is_refused_by_name(tmp_path):
    file = tmp_path / "trainings.json"
    assert read_trainings(file) == EMPTY
    write(made(), file)
    assert read_trainings(file) == made()
    file.write_text(json.dumps(made().model_dump(mode="json") | {"seeds": 3}))
    with pytest.raises(ValueError, match=r"trainings.json: `seeds`.*flipside repeat"):
        read_trainings(file)


def of_the_project(**series):
    metrics = json.loads(Path("reports/metrics.json").read_text())
    rank_by = read_params()["report"]["rank_by"]
    order = tables.ranking(metrics, rank_by)
    pairs = [pair(first, second, 0.2, 0.1, 0.3) for first, second in zip(order, order[1:], strict=False)]
    data = SliceStore.open("data/slices").fingerprint
    return repeated(metrics, rank_by, series, read_params() | read_datasets(), data, pairs), order


def test_the_report_shows_both_intervals_and_what_stands(project):
    trainings, order = of_the_project(generators={1: {"coin": 0.01}, 2: {"coin": -0.02}},
                                      classifier={1: {"rise": 0.5}})
    write(trainings)
    report.main()
    page, markdown = Path("reports/report.html").read_text(), Path("reports/metrics.md").read_text()
    shown = tables.spread_text(trainings, "generators", "coin", trainings.ranked_by)
    assert f"mean {shown}" in markdown and shown in page
    assert "trained once" not in markdown + page and "is ignored" not in markdown + page
    assert f"Of {len(order) - 1} differences between neighbours in the ranking" in page
    assert 'id="repetitions"' in page and 'href="#repetitions"' in page and "## Which differences stand" in markdown
    assert "3 generators" in markdown and "2 classifiers, with all that rests on them" in markdown
    section = page.partition('id="repetitions"')[2].partition("<section")[0]
    rows = re.findall(r"<tr><th scope=\"row\">(\w+)</th>", section)
    assert rows == [*order, "coin", "rise"]  # all of them, then those that each series reaches


def test_the_report_of_another_run_ignores_them_and_says_so(project):
    write(of_the_project(generators={1: {"coin": 0.01}})[0])
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["seed"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(values))
    report.main()
    for file in ("reports/report.html", "reports/metrics.md"):
        text = Path(file).read_text()
        assert "trainings.json is ignored: it was made with other parameters" in text and "trained once" in text
        assert "[0." not in text and 'id="repetitions"' not in text


def test_without_repetitions_the_report_says_that_there_was_one_training(project):
    write(EMPTY)
    report.main()
    for file in ("reports/report.html", "reports/metrics.md"):
        text = Path(file).read_text()
        assert "trained once" in text and "ignored" not in text and 'id="repetitions"' not in text

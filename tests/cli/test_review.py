"""The review sheet: whose counterfactuals it shows, that it doesn't tell whose they are, and what becomes of grades."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.cli.review_sheet.grades import GRADE_COLUMNS, grades_table, read_grades, read_key
from flipside.cli.review_sheet.questions import QUESTIONS
from flipside.cli.review_sheet.sheet import KEY, PAGE, ReviewError, choose_cases, sheet_name, write_review
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from tests.report.report_fixture import METHODS, REPORT, build_project

KEY_OF_FOUR = pd.DataFrame({"case": [1, 2, 3, 4], "method": ["coin", "tace", "coin", "tace"],
                            "slice_id": ["a", "a", "b", "b"]})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A finished run of 12 slices, 6 of them with a lesion, in which coin and rise make counterfactuals."""
    root = tmp_path_factory.mktemp("project")
    build_project(root, np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24)), METHODS, ("coin", "rise"), ("random",))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["review"])
        yield read_inputs(ReportParams(**REPORT))


def test_every_method_gets_the_same_abnormal_slices_in_a_mixed_order(inputs):
    key = choose_cases(inputs, ["rise", "coin"], 4, seed=3)
    assert list(key["case"]) == [*range(1, 9)] and set(key["method"]) == {"coin", "rise"}
    by_method = key.groupby("method")["slice_id"].agg(set)
    assert by_method["coin"] == by_method["rise"] and len(by_method["coin"]) == 4
    labels = inputs.store.index.set_index("slice_id")["label"]
    assert (labels[key["slice_id"]] == 1).all()
    assert key["method"].tolist() not in (["rise"] * 4 + ["coin"] * 4, ["rise", "coin"] * 4)
    assert choose_cases(inputs, ["rise", "coin"], 4, seed=3).equals(key)
    assert not choose_cases(inputs, ["rise", "coin"], 4, seed=4).equals(key)


def test_without_methods_the_leading_one_is_shown_and_no_more_slices_than_there_are(inputs):
    key = choose_cases(inputs, [], 136, seed=1)
    assert set(key["method"]) == {"coin"} and len(key) == 6


def test_a_method_without_counterfactuals_is_refused_by_name(inputs):
    with pytest.raises(ReviewError, match="'random' makes no counterfactuals.*coin, rise"):
        choose_cases(inputs, ["coin", "random"], 4, seed=1)


def test_the_page_stands_alone_and_does_not_tell_whose_an_image_is(inputs):
    key = choose_cases(inputs, ["rise", "coin"], 3, seed=3)
    contents = []
    for _ in range(2):
        write_review(inputs, key, PAGE, KEY)
        contents.append(PAGE.read_bytes())
    page = PAGE.read_text()
    assert contents[0] == contents[1] and not re.search(r"https?:|src=\"(?!data:)", page)
    assert not any(name in page for name in ("coin", "rise", "scan00", "p00"))
    assert page.count("data:image/png") == 6 * 5  # scan, counterfactual, difference, map, mask
    assert page.count("<input type=\"radio\"") == 6 * sum(len(each.answers) for each in QUESTIONS.values())
    assert read_key(KEY).equals(key)


def save(path, *rows, columns=GRADE_COLUMNS):
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def test_grades_are_counted_by_method(tmp_path):
    sheet = sheet_name(KEY_OF_FOUR)
    first = save(tmp_path / "ann.csv", (sheet, "ann", 1, "yes", "yes", "none", "tissue", 'sharp, "good"'),
                 (sheet, "ann", 3, "no", "partly", "many", "hole", ""), (sheet, "ann", 2, "no", "", "few", "hole", ""))
    second = save(tmp_path / "bob.csv", (sheet, "bob", 1, "yes", "no", "none", "tissue", ""))
    text = grades_table(read_grades([first, second], KEY_OF_FOUR)).splitlines()
    assert text[0].startswith("| method | graded | readers | healthy: yes / partly / no |")
    assert text[2].startswith("| coin | 3 | 2 | 67% / 0% / 33% | 33% / 33% / 33% | 67% / 0% / 33% |")
    assert text[3] == "| tace | 1 | 1 | 0% / 0% / 100% | – | 0% / 100% / 0% | 0% / 100% / 0% / 0% |"


@pytest.mark.parametrize(("row", "message"), [
    (("other", "ann", 1, "yes", "yes", "none", "hole", ""), "line 2: grades of the sheet 'other', .*--key"),
    ((None, "ann", 9, "yes", "yes", "none", "hole", ""), "line 2: no case '9'; there are 1 to 4"),
    ((None, "ann", 1, "maybe", "yes", "none", "hole", ""), "line 2: healthy is 'maybe', expected one of yes, partly"),
])
def test_grades_that_do_not_fit_are_refused_with_file_and_line(tmp_path, row, message):
    file = save(tmp_path / "grades.csv", (row[0] or sheet_name(KEY_OF_FOUR), *row[1:]))
    with pytest.raises(ReviewError, match=f"grades.csv, {message}"):
        read_grades([file], KEY_OF_FOUR)


def test_a_file_twice_a_missing_file_and_a_missing_column_are_refused(tmp_path):
    file = save(tmp_path / "a.csv", (sheet_name(KEY_OF_FOUR), "ann", 1, "yes", "yes", "none", "hole", ""))
    with pytest.raises(ReviewError, match="reader 'ann' graded case 1 twice"):
        read_grades([file, file], KEY_OF_FOUR)
    with pytest.raises(ReviewError, match="no.csv not found"):
        read_grades([tmp_path / "no.csv"], KEY_OF_FOUR)
    with pytest.raises(ReviewError, match="no column 'sheet'"):
        read_grades([save(tmp_path / "b.csv", (1,), columns=["case"])], KEY_OF_FOUR)
    with pytest.raises(ReviewError, match="key.csv not found: `flipside review`"):
        read_key(Path(tmp_path / "key.csv"))

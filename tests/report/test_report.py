"""The report as a reader meets it: what is ranked where, a page that stands alone, odd input that breaks nothing."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.cli import ranking as show
from flipside.report import cases as report_cases
from flipside.report import charts, glossary, pictures, tables
from flipside.report.inputs import Result
from flipside.report.params import ReportParams
from flipside.report.run import git_revision
from flipside.report.sections.headline import worst_cases
from stages import report
from tests.report.report_fixture import METHODS, REPORT


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_ranking_follows_each_metrics_own_direction_and_puts_missing_last():
    metrics = {"a": {"iou_val": 0.2, "l1": 0.5}, "b": {"iou_val": 0.6}, "c": {"iou_val": 0.4, "l1": 0.1}}
    assert tables.ranking(metrics, "iou_val") == ["b", "c", "a"]
    assert tables.ranking(metrics, "l1") == ["c", "a", "b"]
    assert not glossary.higher_is_better("hd95_mm_val") and not glossary.higher_is_better("kid_clf")
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


def test_report_is_one_page_without_outside_references_that_shows_every_method(project, capsys):
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "another training, even the same one on another machine, may come out further off" in page
    for address in re.findall(r"""(?:src|href|action|srcset)\s*=\s*["']?([^"'\s>]+)""", page):
        assert address.startswith(("data:", "#")), address
    assert not re.search(r"url\(|@import|https?://", page)
    for name in METHODS:
        assert f'id="method-{name}"' in page
    assert 'title="flipped of coin, n = 5"' in page and 'title="FP healthy of rise, n = 6"' in page
    assert page.count("control</span>") >= 2 and "upper bound" in page and "not a medical device" in page
    assert page.count('type="range"') == 3  # three cases of the one method with counterfactuals
    assert "UNUSED_BLOCK" not in page and "truncated &amp; odd" in page
    for name in ("gallery", "comparison", "changes", "thresholds", "ranking"):
        assert (project / f"reports/figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.index("coin  ") < printed.index("rise  ") and str(project / "reports/report.html") in printed
    show.main()
    assert "coin is first of 2 methods" in capsys.readouterr().out


def test_special_characters_are_escaped(project):
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "Flipside &lt;b&gt;&amp; co&lt;/b&gt;" in page and "<b>& co" not in page
    assert "&lt;bad&gt;.nii.gz" in page and "<bad>" not in page
    assert "scan00&lt;&amp;&gt;_" in page and "scan00<&>" not in page


def test_same_inputs_same_bytes(project):
    def outputs() -> dict[str, bytes]:
        report.main()
        files = [Path("reports/report.html"), Path("reports/metrics.md"), *Path("reports/figures").iterdir()]
        return {str(file): file.read_bytes() for file in files}
    first = outputs()
    assert len(first) == 7 and outputs() == first


def test_missing_optional_metrics_show_a_dash_with_the_reason(project):
    def strip(content):
        for values in content.values():
            for name in ("pixel_ap", "iou_oracle", "iou_val_ci_low"):
                del values[name]
        content["rise"].pop("iou_val")
    edit_json(project / "reports/metrics.json", strip)
    report.main()
    page = (project / "reports/report.html").read_text()
    reason = "needs a counterfactual image; this method gives an attribution map only"
    assert f'title="{reason}">{tables.MISSING}</td>' in page
    assert f'title="not computed for this method in reports/metrics.json">{tables.MISSING}</td>' in page
    assert re.findall(r'<th scope="row"><a href="#method-(\w+)"', page) == ["coin", "random", "rise"]


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
    for name in (*glossary.DISTANCES, "fid_768_coin", "fid_768_both_directions", "fd_clf_unchanged", "perceptual_clf",
                 "lpips"):
        assert not glossary.higher_is_better(name) and glossary.METRICS[name].needs_counterfactual
    values = {"n_realism": 3, "n_realism_coin": 9, "n_realism_both_directions": 7, "n_success_rate": 4}
    names = ("kid", "fid_768", "fid_768_coin", "fid_768_both_directions", "lpips")
    assert [glossary.count(values, name) for name in names] == [3, 3, 9, 7, 4]


def test_a_data_set_without_lesion_masks_is_ranked_by_the_other_metric(project):
    report.main()
    with_masks = (project / "reports/report.html").read_text()
    cases = pd.read_csv("reports/cases.csv").assign(lesion_px=0, fp_area=np.nan).drop(columns=["iou_val", "dice_val"])
    cases.to_csv("reports/cases.csv", index=False)
    for name in METHODS:
        Path(f"data/masks/{name}/val.npy").unlink()
    edit_json(project / "reports/metrics.json", lambda content: [
        values.pop(key) for values in content.values() for key in list(values)
        if key.startswith(("iou", "dice", "n_cases"))])
    pd.read_csv("reports/subgroups.csv").iloc[:0].to_csv("reports/subgroups.csv", index=False)
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "coin is first of 1 methods by judge flipped" in page
    # Maps instead of masks, and nothing that only truth could say.
    for words in ("true positive", '<th scope="col">truth</th>', "<figcaption>mask</figcaption>", "easiest", "by IoU"):
        assert words in with_masks and words not in shown(page), words
    assert "Each method's map over the scan" in page and page.count("<h4>Healthy slices</h4>") == len(METHODS)


def shown(page):
    """The page's pictures and what stands around them, without ranking and glossary."""
    return page[page.index('id="comparison"'):page.index('id="methods"')] + page[page.index('id="methods"'):].split(
        "</section>")[0]


def test_the_first_screen_counts_what_goes_wrong(project):
    cases = pd.read_csv("reports/cases.csv")
    own = (cases["method"] == "coin") & (cases["label"] == 1)
    missed = cases.index[own][:2]
    cases.loc[missed, "iou_val"] = 0.0
    cases.loc[missed[0], "f_x"] = 0.4  # the classifier sees nothing there either
    cases.to_csv("reports/cases.csv", index=False)
    masks = np.load("data/masks/coin/val.npy")
    masks[1::2] = 0
    masks[3, 0, 0] = 1  # one healthy slice is marked
    np.save("data/masks/coin/val.npy", masks)
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "in 2 of 6 lesion slices; the classifier itself calls 1 of these healthy." in page
    assert "Marks something on 1 of 6 healthy slices." in page
    assert re.search(r"Worst on small lesions \(\d+ to \d+ mm²\): IoU 0\.\d+, n = 3; best on large lesions", page)
    assert "still called abnormal: 1 of 5 by the classifier, 1 of 4 by the judge." in page
    assert "Between the 3 patients the mean IoU ranges" in page and "rest on only 3, and" in page


def test_the_worst_cases_are_misses_of_large_lesions_and_of_different_patients():
    cases = pd.DataFrame({"slice_id": list("abcde"), "patient_id": ["p", "p", "q", "r", "s"], "label": 1,
                          "lesion_px": [9, 20, 5, 50, 1], "iou_val": [0.0, 0.0, 0.0, 0.3, 0.9]})
    result = Result("m", {}, False, None, None, {}, {}, cases, {}, {})
    assert worst_cases(result, "iou_val") == [("b", 0.0), ("c", 0.0), ("d", 0.3)]


def test_lesion_sizes_populations_and_confusion_are_shown_as_they_are(project):
    report.main()
    page = (project / "reports/report.html").read_text()
    table = pd.read_csv("reports/subgroups.csv").set_index(["method", "size_group"])
    for method in METHODS:
        for group in ("small", "large"):
            row = table.loc[(method, group)]
            assert f"<b>{row['iou_val']:.3f}</b>" in page and f"AP {row['pixel_ap']:.3f}" in page
    assert "giant" not in page  # a group without a case
    assert "a lesion left &amp; scored<br><span class=\"quiet\">the lesion vanished in the resize" in page
    judge = page[page.index("<caption>judge"):]
    assert re.findall(r"<td>(\d+)</td>", judge)[:4] == ["0", "6", "6", "0"]  # it calls every slice what it is not


def test_every_metric_has_its_place_and_intervals_stand_with_their_metric(project):
    edit_json(project / "reports/metrics.json", lambda content: content["coin"].update(
        {"hd95_mm_val": 7.25, "fid_2048": 61.5, "wilcoxon_p_holm": 1.4e-35, "brand_new": 3, "iou_val_difference": 0.1}))
    report.main()
    page = (project / "reports/report.html").read_text()
    table = page[page.index('<table class="all">'):]
    table = table[:table.index("</table>")]
    place = {name: table.index(f">{name}<") for name in
             ("iou_val", "hd95_mm_val", "fid_2048", "iou_val_difference", "wilcoxon_p_holm", "n_cases", "brand_new")}
    assert list(place.values()) == sorted(place.values())  # theme after theme
    assert "iou_val_ci_low" not in table and "1.4e-35" in table and ">7.250<" in table
    values = json.loads((project / "reports/metrics.json").read_text())["coin"]
    assert f"{values['iou_val_ci_low']:.3f}–{values['iou_val_ci_high']:.3f}" in table


def test_tables_of_another_form_are_refused(project):
    pd.read_csv("reports/subgroups.csv").drop(columns="pixel_ap").to_csv("reports/subgroups.csv", index=False)
    with pytest.raises(ValueError, match="reports/subgroups.csv has no column pixel_ap.*dvc repro evaluate"):
        report.main()
    Path("reports/populations.csv").unlink()
    Path("reports/subgroups.csv").unlink()
    with pytest.raises(FileNotFoundError, match="subgroups.csv not found: it comes from evaluate"):
        report.main()


def test_an_edited_checkout_is_not_passed_off_as_its_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_revision() == "not a git checkout with a commit"
    Path("params.yaml").write_text("seed: 1\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], check=True)
    assert re.fullmatch("[0-9a-f]{40}", git_revision())
    Path("notes.txt").write_text("shapes nothing")
    assert re.fullmatch("[0-9a-f]{40}", git_revision())
    Path("params.yaml").write_text("seed: 2\n")
    assert git_revision().endswith(", with edits that are not committed")


def test_artifacts_of_different_runs_are_refused(project):
    masks = np.load("data/masks/rise/val.npy")
    np.save("data/masks/rise/val.npy", masks[:-1])
    with pytest.raises(ValueError, match="data/masks/rise/val.npy has 11 masks for 12.*extract_masks@rise"):
        report.main()
    Path("data/masks/rise/val.npy").unlink()
    with pytest.raises(FileNotFoundError, match="rise/val.npy not found.*extract_masks@rise"):
        report.main()


def test_overlay_colours_and_difference_scale():
    scan = np.full((2, 2), -1.0, np.float16)
    mask, lesion = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [1, 0]])
    picture = pictures.mask_overlay(scan, mask, lesion)
    assert [int(picture[0, 0].argmax()), int(picture[0, 1].argmax())] == [1, 0]  # green hit, red false alarm
    assert picture[1, 0, 0] > 100 and picture[1, 0, 1] > 100 and picture[1, 0, 2] < 60  # yellow miss
    assert picture[1, 1].tolist() == [0, 0, 0]
    unchanged, darker = pictures.difference(scan, scan), pictures.difference(np.ones((2, 2)), scan)
    assert unchanged.max() < 40 and (darker[..., 2] > darker[..., 0]).all()


def test_best_median_and_worst_are_the_right_slices_with_stable_ties():
    scores = pd.Series({"d": 0.1, "a": 0.9, "c": 0.5, "b": 0.5, "e": 0.0})
    assert report_cases.spread_cases(scores, 3) == [("best", "a"), ("median", "c"), ("worst", "e")]
    assert report_cases.spread_cases(scores.iloc[::-1], 3) == report_cases.spread_cases(scores, 3)
    assert report_cases.spread_cases(scores.iloc[:0], 3) == []


def test_long_curves_are_thinned_to_means():
    table = pd.DataFrame({"step": np.arange(3000.0), "loss": np.tile([0.0, 1.0], 1500)})
    thinned = charts.thin(table)
    assert len(thinned) == 300 and np.allclose(thinned["loss"], 0.5)


def test_report_params_refuse_an_unknown_policy():
    with pytest.raises(ValueError, match="policy"):
        ReportParams.model_validate(REPORT | {"policy": "best"})


def test_a_distance_that_one_method_lacks_says_why(project):
    edit_json(project / "reports/metrics.json", lambda content: content["rise"].update(lpips=0.5))
    report.main()
    page = (project / "reports/report.html").read_text()
    assert f'title="not measured: weights lpi.pth not found">{tables.MISSING}</td>' in page

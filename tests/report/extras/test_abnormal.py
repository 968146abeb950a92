"""Healthy slices made abnormal, as a reader of the report meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import ABNORMAL, Explanations, write_explanations
from flipside.core.packed_masks import write_packed
from flipside.core.store import SliceStore
from flipside.report import pictures
from flipside.report.extras.abnormal import abnormal_pictures
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from stages import report
from tests.report.report_fixture import GENERATED, REPORT


def make_abnormal(project, organ_columns=12):
    """Let coin also brighten a corner of what it makes healthy; the report's cases say how far that is in the organ,
    the first columns of each slice.

    Of the six slices called healthy the first two don't convince the classifier.
    """
    organ = SliceStore.open(project / "data/slices").organ[:]
    organ[:, :, organ_columns:] = 0
    write_packed(project / "data/slices/organ.npy", organ)
    written = Explanations.open(project / "data/explanations/coin")
    abnormal = np.array(written.counterfactual)
    abnormal[:, :4, :4] = 1
    write_explanations(project / "data/explanations/coin", np.array(written.attribution),
                       np.array(written.counterfactual), written.index.assign(f_x_ab=0.97), written.timing,
                       {ABNORMAL: abnormal}, GENERATED)
    cases = pd.read_csv(project / "reports/cases.csv")
    cases.loc[cases["method"] == "coin", ["f_x_ab", "added_in_organ"]] = 0.97, 0.375
    unconvinced = cases.index[(cases["method"] == "coin") & (cases["label"] == 0)][:2]
    cases.loc[unconvinced, ["f_x_ab", "added_in_organ"]] = 0.2, 0.875
    cases.to_csv(project / "reports/cases.csv", index=False)
    file = project / "reports/metrics.json"
    metrics = json.loads(file.read_text())
    metrics["coin"] |= {"added_in_organ": 0.375, "n_added_in_organ": 4, "added_in_organ_chance": 0.25,
                        "judge_flip_rate_to_abnormal": 0.625, "n_judge_flip_rate_to_abnormal": 8}
    file.write_text(json.dumps(metrics))


def test_healthy_slices_made_abnormal_are_shown_with_where_the_lesion_was_put(project):
    report.main()
    assert "made abnormal" not in Path("reports/report.html").read_text().split('id="metrics"')[0]
    make_abnormal(project)
    report.main()
    page = Path("reports/report.html").read_text()
    article = page[page.index('id="method-coin"'):]
    article = article[: article.index("</article>")]
    for panel in ("scan and organ", "made healthy", "made abnormal", "added"):
        assert article.count(f"<figcaption>{panel}</figcaption>") == 3
    assert article.count("0.375 of what is added in the organ; f(x) 0.100, made abnormal 0.970") == 3
    assert "0.875" not in article  # of slices that were not made abnormal
    assert ">added in organ <b>0.375</b> (n = 4)" in article and ">in organ by chance <b>0.250</b> (n = 4)" in article
    assert ">judge flipped to abnormal <b>0.625</b> (n = 8)" in article
    assert "Slices called healthy, made abnormal" not in page.replace(article, "")


def test_what_is_added_is_shown_without_what_both_images_get_wrong(project):
    make_abnormal(project)
    inputs = read_inputs(ReportParams.model_validate(REPORT))
    shown = abnormal_pictures(inputs, inputs.results["coin"], inputs.store.index["slice_id"].iloc[1])
    assert shown["added"][:4, :4].any(axis=-1).all()
    shown["added"][:4, :4] = 0
    assert not shown["added"].any() and shown["made healthy"].any()


def test_the_organ_is_tinted_and_the_rest_of_the_scan_is_as_it_was():
    scan, organ = np.zeros((2, 2), np.float16), np.array([[1, 0], [0, 0]], np.uint8)
    picture = pictures.region_overlay(scan, organ)
    assert picture[0, 0, 2] > picture[0, 0, 0] and np.array_equal(picture[1], pictures.picture(scan)[1])


def test_without_organ_masks_nothing_is_said_of_the_organ(project):
    make_abnormal(project, organ_columns=24)
    cases = pd.read_csv("reports/cases.csv").assign(added_in_organ=np.nan)
    cases.to_csv("reports/cases.csv", index=False)
    report.main()
    page = Path("reports/report.html").read_text()
    article = page[page.index('id="method-coin"'):]
    article = article[: article.index("</article>")]
    assert article.count("<figcaption>made abnormal</figcaption>") == 3 and "scan and organ" not in article
    assert article.count("f(x) 0.100, made abnormal 0.970") == 3 and "of what is added in the organ" not in article

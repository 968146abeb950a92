"""The attributes that StylEx moves, as a reader of the report meets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.core.files import write_json
from flipside.report.extras.attributes import attribute_pictures
from stages import report
from tests.report.report_fixture import edit_json

FOLDER = Path("reports/training/stylegan_attributes")


@pytest.fixture
def project(project):
    """A finished run in which `coin` explains with found attributes."""
    edit_json(Path("data/explanations/coin/parameters.json"), lambda made: made.update(
        needs="models/attributes/stylegan"))
    write_json("reports/training/stylegan/parameters.json", {"width": 8})
    write_json(FOLDER / "parameters.json", {"count": 8})
    return project


def test_every_attribute_is_shown_with_its_effect_on_the_logit(project):
    pd.DataFrame({
        "attribute": [1, 2], "layer": [4, 0], "channel": [17, 3], "toward": ["least", "greatest"],
        "mean_effect": [2.5, 0.5], "lowers": [1.0, 0.25], "example": ["s<1>", "s2"], "logit_before": [4.5, 1.25],
        "logit_after": [-0.75, 0.625], "n_images": 40, "n_called": 38, "n_stable": 40}).to_csv(
            FOLDER / "attributes.csv", index=False)
    np.save(FOLDER / "strip.npy", np.zeros((2, 3, 24, 24), np.float16))
    report.main()
    page = Path("reports/report.html").read_text()
    article = page[page.index('id="method-coin"'):]
    article = article[: article.index("</article>")]
    assert "layer 4, map 17 toward its least value: lowers the logit by 2.5 in the mean of 40 training" in article
    assert "38 of them called abnormal" in article and "in 25% of them at all; here from 1.25 to 0.625" in article
    assert "s&lt;1&gt;" in article
    for panel in ("encoded", "moved", "change", "mean change"):
        assert article.count(f"<figcaption>{panel}</figcaption>") == 2
    assert "toward its least value" not in page.replace(article, "")


def test_attributes_that_are_missing_are_named(project):
    with pytest.raises(FileNotFoundError, match=r"stylegan_attributes/attributes\.csv.*find_attributes@stylegan"):
        report.main()


def test_a_strip_shows_the_move_and_its_mean_change():
    strip = np.stack([np.full((8, 8), -0.5), np.full((8, 8), 0.25), np.full((8, 8), -0.5)]).astype(np.float16)
    shown = attribute_pictures(strip, np.asarray)
    assert shown["encoded"][0, 0].tolist() == [64, 64, 64] and shown["moved"][0, 0].tolist() == [159, 159, 159]
    red, blue = shown["change"][0, 0].astype(int), shown["mean change"][0, 0].astype(int)
    assert red[0] > red[2] and blue[2] > blue[0]  # brighter, darker

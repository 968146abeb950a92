"""Blobs, k*, region and composite, as a reader of the report meets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flipside.artifacts.explanations import BLOBS, ROI, Explanations, write_explanations
from flipside.report.extras import regions
from stages import report
from tests.report.report_fixture import GENERATED


def test_a_methods_blobs_and_region_are_shown_with_k_star(project):
    report.main()
    assert "k* is blob" not in Path("reports/report.html").read_text()
    folder = project / "data/explanations/coin"
    written = Explanations.open(folder)
    blobs = np.zeros((len(written.index), 3, 7), np.float32)
    blobs[:, :, :5] = 0.3, 0.4, 0.2, 0.1, 0.5
    blobs[:, 1:, 5], blobs[:, 2, 6] = 1, 1
    roi = np.zeros(written.attribution.shape)
    roi[:, 4:8] = 0.5
    write_explanations(folder, np.array(written.attribution), np.array(written.counterfactual), written.index,
                       written.timing, {ROI: roi, BLOBS: blobs}, GENERATED)
    report.main()
    page = Path("reports/report.html").read_text()
    article = page[page.index('id="method-coin"'):]
    article = article[: article.index("</article>")]
    assert article.count("k* is blob 3, with 1 more in the region") == 3
    for panel in ("blobs", "region"):
        assert article.count(f"<figcaption>{panel}</figcaption>") == 3
    assert "k* is blob" not in page.replace(article, "")


def test_an_outline_goes_round_its_blob_in_the_colour_of_its_part():
    scan = np.full((32, 32), -1, np.float16)
    blobs = np.array([[0.25, 0.25, 0.1, 0.1, 0, 0, 0], [0.75, 0.75, 0.1, 0.1, 0, 1, 1], [0.5, 0.5, 0, 0, 0, 1, 0]])
    picture = regions.outline_blobs(scan, blobs)
    assert picture.shape == (160, 160, 3)
    for colour, centre in ((regions.BLOB, 0.25), (regions.MOST_CHANGED, 0.75)):
        rows, columns = np.nonzero((picture == colour).all(axis=-1))
        radii = np.hypot(rows / 160 - centre - 0.5 / 32, columns / 160 - centre - 0.5 / 32)
        assert len(radii) > 30 and np.abs(radii - 0.1).max() < 0.015
    assert not (picture == regions.NEIGHBOUR).all(axis=-1).any()  # seen nowhere

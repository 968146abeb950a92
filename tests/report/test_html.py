"""The page as a reader meets it: it stands alone, shows every method, and odd input breaks nothing."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError

from flipside.cli.ranking import ranking
from flipside.core.params import SECTIONS
from flipside.report import html
from flipside.report.html import PAGE
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from flipside.report.sections import PAGE_SECTIONS
from flipside.report.sections.section import Section
from stages import report
from tests.report.report_fixture import METHODS, REPORT, edit_json


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
    for name in ("gallery", "comparison", "changes", "flips", "thresholds", "ranking", "lost_iou"):
        assert (project / f"reports/figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.index("coin  ") < printed.index("rise  ") and str(project / "reports/report.html") in printed
    ranking()
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
    assert len(first) == 9 and outputs() == first


def test_a_data_set_without_lesion_masks_is_ranked_by_the_other_metric(project):
    report.main()
    with_masks = (project / "reports/report.html").read_text()
    cases = pd.read_csv("reports/cases.csv").assign(lesion_px=0, fp_area=np.nan)
    cases = cases.drop(columns=["iou_label_free", "dice_label_free"])
    cases.to_csv("reports/cases.csv", index=False)
    for name in METHODS:
        Path(f"data/masks/{name}/label_free.npy").unlink()
    edit_json(project / "reports/metrics.json", lambda content: [
        values.pop(key) for values in content.values() for key in list(values)
        if key.startswith(("iou", "dice", "lost_to", "n_cases"))])
    pd.read_csv("reports/subgroups.csv").iloc[:0].to_csv("reports/subgroups.csv", index=False)
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "coin is first of 1 methods by bounded flips" in page
    assert 'id="lost_iou"' in with_masks and 'id="lost_iou"' not in page
    # Maps instead of masks, and nothing that only truth could say.
    for words in ("true positive", '<th scope="col">truth</th>', "<figcaption>mask</figcaption>", "easiest", "by IoU"):
        assert words in with_masks and words not in shown(page), words
    assert "Each method's map over the scan" in page and page.count("<h4>Healthy slices</h4>") == len(METHODS)


def shown(page):
    """The page's pictures and what stands around them, without ranking and registry."""
    return page[page.index('id="comparison"'):page.index('id="methods"')] + page[page.index('id="methods"'):].split(
        "</section>")[0]


def test_lesion_sizes_populations_and_confusion_are_shown_as_they_are(project):
    report.main()
    page = (project / "reports/report.html").read_text()
    table = pd.read_csv("reports/subgroups.csv").set_index(["method", "size_group"])
    for method in METHODS:
        for group in ("small", "large"):
            row = table.loc[(method, group)]
            assert f"<b>{row['iou']:.3f}</b>" in page and f"AP {row['pixel_ap']:.3f}" in page
    assert "giant" not in page  # a group without a case
    assert "a lesion left &amp; scored<br><span class=\"quiet\">the lesion vanished in the resize" in page
    judge = page[page.index("<caption>judge"):]
    assert re.findall(r"<td>(\d+)</td>", judge)[:4] == ["0", "6", "6", "0"]  # it calls every slice what it is not


def test_every_section_has_its_template_its_place_and_a_link(project):
    report.main()
    page = Path("reports/report.html").read_text()
    found = re.findall(r'<section id="(\w+)">\n<h2>(.+?)</h2>', page)
    kinds = [kind for kind in PAGE_SECTIONS if kind.id not in ("inpainter", "repetitions", "volumes")]  # none here
    assert found == [(kind.id, kind.heading) for kind in kinds]
    links = page[page.index('<nav aria-label="Sections">'):].split("</nav>")[0]
    assert re.findall(r'href="#(\w+)">(.+?)</a>', links) == [(kind.id, kind.link) for kind in kinds]
    templates = {file.name.removesuffix(".html.jinja") for file in PAGE.glob("*.jinja")}
    assert templates == {kind.id for kind in PAGE_SECTIONS} | {"report", "headline", "macros"}


def test_a_new_section_is_a_class_and_its_template(project, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Slices(Section):
        id = "slices"
        link = "Slices"
        heading = "How many slices"
        count: int

        @classmethod
        def build(cls, inputs):
            return cls(len(inputs.store.index))

    page = tmp_path / "page"
    shutil.copytree(PAGE, page)
    (page / "slices.html.jinja").write_text("<p>{{ section.count }} & more</p>")
    monkeypatch.setattr(html, "PAGE", page)
    monkeypatch.setattr(html, "PAGE_SECTIONS", (*PAGE_SECTIONS, Slices))
    report.main()
    text = Path("reports/report.html").read_text()
    assert '<section id="slices">\n<h2>How many slices</h2>\n<p>12 & more</p>' in text
    assert '<a href="#slices">Slices</a></nav>' in text
    (page / "slices.html.jinja").write_text("{{ section.counts }}")
    with pytest.raises(UndefinedError, match="counts"):
        report.main()


def test_what_the_report_prints_of_the_parameters_follows_from_their_sections(project):
    inputs = read_inputs(ReportParams.model_validate(REPORT))
    made_with = {"classifiers", "generators", "encoders", "attributes", "methods"}  # printed from what was made
    assert {*SECTIONS} - {*inputs.parameters} == {"runtime", *made_with}
    assert set(inputs.made_with["methods"]) == set(METHODS) and inputs.made_with["models"]["coin"] == {
        "width": 8, "architecture": "resnet18"}
    assert list(inputs.parameters["datasets"]) == ["phantom"]  # only the block in use

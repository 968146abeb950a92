"""The site builds without a warning and without the network, and its reference pages leave nothing out."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from docs.generate import metrics, parameters
from docs.generate.cli import make_targets
from docs.generate.schema import Model
from flipside.core.params import Params
from flipside.metrics.registry import METRICS

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}  # what a browser fetches


class Links(HTMLParser):
    """Where a page's links lead, and what it loads."""

    def __init__(self, file):
        super().__init__()
        self.links, self.loaded, self.targets = [], [], set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.targets.add(values.get("id"))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in LOADED and values.get(LOADED[tag]):
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", folder], cwd=ROOT,
                           env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {file: Links(file) for file in site.rglob("*.html")}


def text_of(site, page):
    """A page's text without its tags."""
    html = (site / page / "index.html").read_text()
    return re.sub(r"<[^>]+>", "", html)


def test_pages_load_nothing_from_the_network(site, pages):
    assert len(pages) > 20
    for file, page in pages.items():
        assert not [url for url in page.loaded if urlsplit(url).netloc], file
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import ['\"]?https?:", sheet.read_text()), sheet


def test_links_within_the_site_lead_somewhere(site, pages):
    for file, page in pages.items():
        for url in [*page.links, *page.loaded]:
            parts = urlsplit(url)
            if parts.netloc or parts.scheme or file.name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{file.relative_to(site)} links to {url}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in {*pages[target].targets, "__skip", "__codelineno"}, (file, url)


def test_every_parameter_is_explained(site):
    page = text_of(site, "reference/parameters")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    missing = [key for key in parameters.leaves(params) if key not in page]
    assert not missing
    for name, block in yaml.safe_load((ROOT / "datasets.yaml").read_text())["datasets"].items():
        assert name in page and f"Layout {block['layout']}" in page
        assert not [key for key in block if key not in page]


def test_every_metric_is_explained(site):
    page = text_of(site, "reference/metrics")
    found = json.loads((ROOT / "results/default/metrics.json").read_text())
    names = {re.sub("_ci_(low|high)$", "", name) for values in found.values() for name in values}
    assert not {name for name in names if name not in page}


def test_metrics_say_which_way_is_better_and_what_they_rest_on():
    rows = {line.split(" | ")[0].strip("| `±"): line.split(" | ") for line in metrics.page().splitlines()
            if line.startswith("| `")}
    assert rows["iou_val"][2] == "more" and rows["hd95_mm_val"][2] == "less" and "±" in rows["iou_val"][0]
    assert rows["lesion_sensitivity"][4] == "`n_lesions`"
    assert float(rows["iou_val"][5].strip(" |")) == METRICS["iou_val"].tolerance


def test_every_stage_artifact_and_command_is_listed(site):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    page = text_of(site, "reference/artifacts")
    for name, stage in stages.items():
        stage = stage.get("do", stage)
        assert name in page and stage["cmd"] in page
        assert not [out for out in stage.get("outs", []) if isinstance(out, str) and out not in page]
    commands = text_of(site, "reference/cli")
    assert all(f"make {name}" in commands for name, _ in make_targets(ROOT / "Makefile"))
    assert "flipside sweep" in commands and "--metric METRIC" in commands
    assert all(text for _, text in make_targets(ROOT / "Makefile")), "a target of the Makefile has no comment"


class Inner(Params):
    kind: str = "plain"
    size: int
    """How large."""


class Toy(Params):
    weight: float
    """Of the loss | in all."""
    sides: tuple[int, int]
    """Rows and columns."""
    inner: Inner
    """What is inside."""


def test_a_parameters_meaning_and_value_come_from_its_model():
    values = {"weight": 1e-06, "sides": [3, 4], "inner": {"kind": "plain", "size": 7}}
    found = {one.key: one for one in Model(Toy.model_json_schema()).parameters("toy", values)}
    assert list(found) == ["toy.weight", "toy.sides", "toy.inner.kind", "toy.inner.size"]
    assert found["toy.inner.size"].meaning == "How large." and found["toy.inner.size"].value == "7"
    assert found["toy.sides"].kind == "[whole number, whole number]"
    assert parameters.row(found["toy.weight"])[3] == "Of the loss \\| in all."


def test_every_key_of_an_imported_classifier_is_explained():
    from flipside.classifiers.importing import ForeignParams

    page = (ROOT / "docs/how-to/own-classifier.md").read_text()
    rows = page[page.index("| key | meaning |"):].split("\n\n")[0]
    assert {name for name in ForeignParams.model_fields if f"`{name}`" not in rows} == set()

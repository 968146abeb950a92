"""The diagram shows dvc.yaml: each stage once, arrows where artifacts go, lesion masks where they may go."""

import dataclasses
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs.generate import diagram
from docs.generate.pipeline import BOXES, arrows, produces, read_stages
from tests.test_dvc_yaml import SEEING, STAGES, base, paths

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stages():
    return read_stages(ROOT)


def box_of(stage):
    (place,) = [number for number, box in enumerate(BOXES) if stage in box.stages]
    return place


def test_every_stage_is_in_exactly_one_box(stages):
    drawn = [name for box in BOXES for name in box.stages]
    assert sorted(drawn) == sorted(stage.name for stage in stages)
    assert len({(box.column, box.row) for box in BOXES}) == len(BOXES) <= 13


def test_the_committed_picture_is_that_of_dvc_yaml(stages):
    assert (ROOT / "docs/pipeline.svg").read_text() == diagram.svg(stages), "run `python -m docs.generate`"


def test_the_picture_names_every_stage(stages):
    texts = {node.text for node in ElementTree.fromstring(diagram.svg(stages)).iter("{http://www.w3.org/2000/svg}text")}
    assert {stage.name for stage in stages} | {box.title for box in BOXES} <= texts


def test_arrows_are_the_dependencies_of_the_unrolled_pipeline(stages):
    """Against dvc.yaml as tests/test_dvc_yaml.py unrolls it: what feeds a box is what a way of arrows leads from."""
    fed = set()
    for name, stage in STAGES.items():
        for other, source in STAGES.items():
            outs = [out for kind in ("outs", "metrics") for out in paths(source.get(kind, [])) if "truth" not in out]
            pair = box_of(base(other)), box_of(base(name))
            if pair[0] != pair[1] and any(dep == out or dep.startswith(out + "/") or out.startswith(dep + "/")
                                          for dep in paths(stage["deps"]) for out in outs):
                fed.add(pair)
    drawn = arrows(stages).slices
    assert drawn <= fed
    assert all(leads(drawn, *pair) for pair in fed)
    assert not [pair for pair in drawn if leads(drawn - {pair}, *pair)], "an arrow that a longer way replaces"


def leads(pairs, start, end):
    return start == end or any(leads(pairs, target, end) for source, target in pairs if source == start)


def test_lesion_masks_go_to_no_stage_that_trains_or_explains(stages):
    reached = {BOXES[target].stages for _, target in arrows(stages).truth}
    assert reached and {name for names in reached for name in names} <= {*SEEING, "extract_foreign_masks"}


def test_a_stage_that_began_to_read_the_truth_could_not_be_drawn(stages):
    peeking = [dataclasses.replace(stage, deps=[*stage.deps, "data/truth"]) if stage.name == "explain" else stage
               for stage in stages]
    with pytest.raises(ValueError, match="no lane for lesion masks from 'Draw anomalies' to 'Explain'"):
        diagram.svg(peeking)


@pytest.mark.parametrize(("out", "dep", "expected"), [
    ("models/generators/${key}", "models/generators/coin", True),
    ("data/raw/phantom", "data/raw", True),
    ("data/raw", "data/raw/phantom", True),
    ("reports/${key}.json", "reports/judge.json", True),
    ("reports/training/${key}", "reports/metrics.json", False),
    ("data/slices", "data/slices_other", False),
])
def test_what_a_dep_reads(out, dep, expected):
    assert produces(out, dep) == expected

"""kill -9 at any moment: nothing half-written is taken for whole, and the stage run again ends with the same bytes."""

import json
import shutil

import numpy as np
import pytest
import yaml

from tests.apart import run_apart
from tests.faults import writers
from tests.faults.project import content, copied, done, outputs, run_stage, snapshot
from tests.test_dvc_yaml import STAGES, TAUGHT, base

# A generator's, those that search and those that draw random numbers; all methods explain in one loop.
METHODS = [f"explain@{name}" for name in (
    "coin", "impact", "octet", "tace", "stylex", "rise", "random", "mean_healthy")]
GENERATORS = [name for name in STAGES if name.startswith("train_generator@")]
INPAINTER = "train_generator@impact"  # no game of generator and discriminator: one update at each step


def started(finished, tmp_path, name):
    """A finished project in which one stage's outputs are those of an older run."""
    project = copied(finished, tmp_path / "project", "data", "models", "reports")
    for output in outputs(name):
        path = project / output
        if path.is_dir():
            (path / "old").write_text("of an older run")
        else:
            path.write_text("{}")
    return project


def leave_few_methods(root):
    """`evaluate` measures all methods before it writes anything, and would do so again for each kill."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["methods"] = {name: params["methods"][name] for name in ("coin", "impact", "rise", "centre")}
    params["evaluate"]["upper_bound"] = None
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.mark.parametrize("name", [
    "train_classifier@classifier", "train_generator@coin", INPAINTER, "judge_counterfactuals", "extract_masks@coin",
    "segment_scans", "evaluate"])
def test_killed_whenever_something_is_about_to_take_its_name(finished, tmp_path, name):
    """One run dies before its first rename, the next later, until one gets through."""
    project, expected = started(finished, tmp_path, name), finished
    if name == "evaluate":
        expected = copied(finished, tmp_path / "undisturbed", "data", "models", "reports")
        for root in (project, expected):
            leave_few_methods(root)
        done(expected, name)
    whole = {output: [{}, snapshot(project / output), snapshot(expected / output)] for output in outputs(name)}
    for number in range(1, 40, 2 if name.startswith("train") else 1):
        ended = run_stage(project, name, kill_at=("os", "replace", number))
        if not ended.killed:
            break
        for output, states in whole.items():
            assert snapshot(project / output) in states, f"{output} is half-written after kill {number}"
    assert ended.status == 0 and number >= 3, ended.output
    assert content(project, name) == content(expected, name)
    left = [path for folder in ("data", "models", "reports") for path in (project / folder).rglob("*partial*")]
    assert not left
    if name.startswith("train"):
        assert "resuming" in ended.output and not list((project / ".scratch").glob("train*"))


@pytest.mark.parametrize(("name", "moment"), [
    # in step 7, saved at step 4
    *((name, ("flipside.generators.training.adversarial", "update", 13)) for name in GENERATORS if name != INPAINTER),
    (INPAINTER, ("flipside.generators.impact", "update", 7)),
    ("train_classifier@judge", ("flipside.classifiers.training", "draw_rows", 5)),  # in epoch 2, saved after each
    ("train_encoder@blobgan", ("flipside.generators.encoders.training", "generator_for", 19)),  # step 7, phase 2
    ("train_segmenter", ("flipside.segmenters.training", "update", 7)),  # in step 7, saved at step 4
    ("train_supervised", ("flipside.segmenters.training", "update", 7)),
    ("invert@blobgan", ("flipside.methods.inverting.invert_slices", "invert", 2)),  # in the second batch
    ("find_attributes@stylegan", ("flipside.methods.latent.attributes", "measure_effects", 3)),  # in the third image
    *((name, ("flipside.methods.base.explain_slices", "now", 4)) for name in METHODS),  # in the second of four batches
])
def test_killed_in_the_middle_of_its_work(finished, tmp_path, name, moment):
    truth = ["data/truth"] if base(name) in TAUGHT else []
    project = copied(finished, tmp_path / "project", "data/slices", "data/latents", "models", *truth)
    for output in outputs(name):
        shutil.rmtree(project / output, ignore_errors=True)
    assert run_stage(project, name, kill_at=moment).killed
    assert not any((project / output).exists() for output in outputs(name))
    ended = done(project, name)
    assert "resuming" in ended.output
    assert content(project, name) == content(finished, name)


def test_a_writer_killed_at_random_leaves_whole_versions(tmp_path):
    rng = np.random.default_rng(11)
    seen = set()
    for _ in range(12):
        run_apart(writers.write_versions, tmp_path / "out", kill_after=float(rng.uniform(0.05, 0.25)))
        if (tmp_path / "out/folder").is_dir():
            versions = [file.read_text() for file in (tmp_path / "out/folder").iterdir()]
            assert len(versions) == writers.FILES and len(set(versions)) == 1
            seen.add(versions[0])
        if (tmp_path / "out/file.json").is_file():
            assert len(json.loads((tmp_path / "out/file.json").read_text())) == 1000
    assert len(seen) > 3  # it did write between the kills

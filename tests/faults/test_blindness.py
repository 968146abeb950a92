"""Weak supervision, in the act: what trains or explains works where no lesion mask exists, and opens none beside it.

The second half is watched in every process of tests/faults: `_no_truth` in project.py ends one that opens a mask.
"""

import os

from tests.apart import run_apart
from tests.faults import project
from tests.faults.project import outputs
from tests.test_dvc_yaml import BLIND, STAGES, TAUGHT, inside, paths


def test_everything_is_trained_and_explained_without_the_truth(explained):
    assert {path.name for path in (explained / "data").iterdir()} == {
        "checked_params.txt", "explanations", "judgements", "latents", "probes", "realism", "slices"}
    assert not [path for path in explained.rglob("*") if "lesion" in path.name or "truth" in path.name]
    for name in BLIND:
        assert all((explained / output).exists() for output in outputs(name)), name


def test_the_upper_bound_alone_learns_from_lesion_masks_and_feeds_no_other_training(prepared):
    """That it was trained in `prepared`, where the masks are, is all that sets it apart."""
    assert TAUGHT == ("train_supervised",) and not set(TAUGHT) & set(BLIND)
    assert all((prepared / output).exists() for output in outputs("train_supervised"))
    readers = [name for name in STAGES if any(inside(dep, "data/truth") for dep in paths(STAGES[name]["deps"]))]
    assert [name for name in readers if name.startswith(("train", "invert", "find", "explain"))] == [*TAUGHT]
    fed = [name for name in STAGES if "models/segmenters/supervised" in paths(STAGES[name]["deps"])]
    assert fed == ["explain@supervised"]


def test_a_stage_that_opened_the_truth_would_be_noticed(prepared):
    ended = run_apart(peek, str(prepared / "data/truth/lesion.npy"))
    assert ended.status == 97 and "lesion.npy" in ended.output


def peek(path):
    project.sys.addaudithook(project._no_truth)
    os.stat(path)  # looking whether it is there is no harm
    with open(path):
        pass

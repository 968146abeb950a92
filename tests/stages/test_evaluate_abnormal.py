"""The numbers of a method that also makes healthy slices abnormal."""

import numpy as np
import pandas as pd
import pytest

from flipside.artifacts.explanations import ABNORMAL, Explanations, write_explanations
from flipside.core.store import write_store
from flipside.metrics import registry
from stages import evaluate
from tests.stages.project_of_two import GOOD_RECORDS, SIZE, run, run_all, slices


def write_left_organ():
    """The left half of every slice is the organ."""
    images, _, index = slices()
    organ = np.zeros(images.shape, np.uint8)
    organ[:, :, : SIZE // 2] = 1
    write_store("data/slices", images, organ, index)


def write_badly_remade():
    """Let `good` make every image anew and get the right half wrong."""
    written = Explanations.open("data/explanations/good")
    healthy = np.array(written.counterfactual)
    healthy[:, :, SIZE // 2:] += 0.4
    write_explanations("data/explanations/good", np.array(written.attribution), healthy, written.index, written.timing,
                       records=GOOD_RECORDS)


def write_abnormal(missing=0, unjudged=0):
    """Let `good` also make images abnormal: they differ from its healthy ones in a square, left or right in turn.

    Of the healthy slices all but the first are called abnormal then; the judge agrees on every other one. `missing`,
    `unjudged`: so many slices lack their f and their judgement.
    """
    _, _, index = slices()
    written = Explanations.open("data/explanations/good")
    rows = index.set_index("slice_id").index.get_indexer(written.index["slice_id"])
    healthy = np.array(written.counterfactual)
    abnormal = healthy.copy()
    abnormal[0::8, 4:8, 4:8] += 0.25
    abnormal[4::8, 4:8, -8:-4] -= 0.25
    f_ab = np.where(np.arange(len(rows)) % 4 == 0, 0.9, 0.05)
    f_ab[np.flatnonzero(index["split"].iloc[rows] == "test")[0]] = 0.1
    f_ab[len(rows) - missing :] = np.nan
    write_explanations("data/explanations/good", np.array(written.attribution), healthy,
                       written.index.assign(f_x_ab=f_ab), written.timing, {ABNORMAL: abnormal},
                       GOOD_RECORDS)
    judge = pd.Series(np.where(np.arange(len(rows)) % 8 == 0, 0.7, 0.3), written.index["slice_id"])
    judge.iloc[len(rows) - unjudged :] = np.nan
    judgements = pd.read_csv("data/judgements/good.csv")
    judgements.assign(judge_x_ab=judgements["slice_id"].map(judge)).to_csv("data/judgements/good.csv", index=False)


def test_images_made_abnormal_are_measured_where_a_method_makes_them(project_of_two):
    write_left_organ()
    write_badly_remade()
    before = run_all()
    write_abnormal()
    after = run_all()
    assert after["blind"] == before["blind"]
    added = {name: value for name, value in after["good"].items() if name not in before["good"]}
    assert {name: value for name, value in after["good"].items() if name in before["good"]} == before["good"]
    assert {name for name in added if not name.startswith("n_") and "_ci_" not in name} <= set(registry.METRICS)
    # 8 healthy test slices, every other one with a square in the organ, beginning with the one that doesn't convince
    assert added["n_success_rate_to_abnormal"] == added["n_cv_to_abnormal"] == 8
    assert added["success_rate_to_abnormal"] == added["cv_to_abnormal"] == 7 / 8
    assert (added["n_judge_flip_rate_to_abnormal"], added["judge_flip_rate_to_abnormal"]) == (8, 4 / 8)
    assert added["n_added_in_organ"] == added["n_added_peak_in_organ"] == 7
    assert added["added_in_organ"] == added["added_peak_in_organ"] == 3 / 7 and added["added_in_organ_chance"] == 0.5
    cases = pd.read_csv("reports/cases.csv")
    assert cases[cases["method"] == "good"][["f_x_ab", "judge_x_ab"]].notna().all(axis=None)
    assert cases[cases["method"] == "blind"][["f_x_ab", "judge_x_ab", "added_in_organ"]].isna().all(axis=None)


def test_images_made_abnormal_without_their_probability_are_refused(project_of_two):
    run_all()
    write_abnormal(missing=2)
    with pytest.raises(ValueError, match="lacks f_x_ab of 2 test slices.*explain@good"):
        run(evaluate)


def test_images_made_abnormal_that_the_judge_has_not_seen_are_refused(project_of_two):
    run_all()
    write_abnormal(unjudged=3)
    with pytest.raises(ValueError, match="lacks judge_x_ab of 3 test slices.*judge_counterfactuals"):
        run(evaluate)

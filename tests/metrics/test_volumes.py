"""Lesions of whole scans against a slow count voxel by voxel, and against what can be counted by hand."""

from collections import deque
from itertools import product

import numpy as np
import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.lesion_volumes import LesionVolumes
from flipside.metrics.volumes import Stack, find_stacks, score_volume

SURE = np.zeros(6, bool)
PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")


def components(mask):
    """26-connected components as sets of voxels, by a search from voxel to voxel."""
    left = set(map(tuple, np.argwhere(mask)))
    found = []
    while left:
        queue, own = deque([left.pop()]), set()
        while queue:
            voxel = queue.popleft()
            own.add(voxel)
            for step in product((-1, 0, 1), repeat=3):
                near = tuple(a + b for a, b in zip(voxel, step, strict=True))
                if near in left:
                    left.remove(near)
                    queue.append(near)
        found.append(own)
    return found


def slow_score(mask, truth):
    lesions, marked = components(truth), components(mask)
    dices, detected = [], 0
    for lesion in lesions:
        touching = [one for one in marked if one & lesion]
        union = set().union(*touching)
        dices.append(2 * len(union & lesion) / (len(union) + len(lesion)))
        detected += any(len(one & lesion) / len(one | lesion) >= 0.1 for one in touching)
    false = sum(not any(one & lesion for lesion in lesions) for one in marked)
    return len(lesions), detected, false, sum(dices) / (len(lesions) + false)


@pytest.mark.parametrize("seed", range(6))
def test_against_a_slow_count(seed):
    random = np.random.default_rng(seed)
    truth, mask = (random.random((2, 6, 9, 8)) < 0.06).astype(np.uint8)
    mask |= truth * (random.random(truth.shape) < 0.4)
    score = score_volume(mask, truth, SURE, 2.0)
    assert (score.lesions, score.detected, score.false) == slow_score(mask, truth)[:3]
    assert score.false and score.detected
    assert score.dice == pytest.approx(slow_score(mask, truth)[3])
    assert (score.true_ml, score.marked_ml) == (truth.sum() * 0.002, mask.sum() * 0.002)


def test_a_case_by_hand():
    truth, mask = np.zeros((2, 6, 20, 20), np.uint8)
    truth[0:4, 0:5, 0:5] = 1  # 100 voxels, half of them found, in two pieces
    mask[0, 0:5, 0:5] = mask[2, 0:5, 0:5] = 1
    truth[0, 10:12, 10:12] = 1  # missed
    mask[5, 15, 15] = 1  # false
    score = score_volume(mask, truth, SURE, 500.0)
    assert (score.lesions, score.detected, score.false) == (2, 1, 1)
    assert score.dice == pytest.approx((2 * 50 / (100 + 50) + 0 + 0) / 3)
    assert (score.true_ml, score.marked_ml) == (52.0, 25.5)
    unsure = SURE.copy()
    unsure[5] = True  # the lesion of that slice vanished in the resize
    assert score_volume(mask, truth, unsure, 500.0).false == 0


def test_a_lesion_that_is_touched_by_too_little_is_not_found():
    truth, mask = np.zeros((2, 6, 20, 20), np.uint8)
    truth[0, 0:10, 0:10] = 1
    mask[0, 0, 0:9] = 1
    assert score_volume(mask, truth, SURE, 1.0).detected == 0
    mask[0, 0, 9] = 1  # 10 of 100
    assert score_volume(mask, truth, SURE, 1.0).detected == 1


def test_without_a_lesion_there_are_only_false_ones():
    mask = np.zeros((6, 8, 8), np.uint8)
    mask[0, 0, 0] = mask[3, 4, 4] = 1
    score = score_volume(mask, mask * 0, SURE, 1.0)
    assert (score.lesions, score.detected, score.false) == (0, 0, 2) and np.isnan(score.dice)
    empty = score_volume(mask * 0, mask, SURE, 1.0)
    assert (empty.lesions, empty.detected, empty.false, empty.dice, empty.marked_ml) == (2, 0, 0, 0, 0)


class Test:
    """A test split with a volume whose slice 4 is missing, and a single picture."""

    __test__ = False

    def __init__(self, has_clean=False):
        index = pd.DataFrame({"scan_id": ["v", "p", "v", "v"], "z": [5, 0, 3, 2], "spacing_z_mm": [3.0, 1.0, 3.0, 3.0]})
        self.store, self.rows, self.has_clean = type("Store", (), {"index": index}), np.arange(4), has_clean
        self.spacing = np.array([[2.0, 0.5]] * 4)


def test_slices_are_stacked_by_z_and_those_missing_are_empty():
    (stack,) = find_stacks(Test())
    np.testing.assert_array_equal(stack.rows, [3, 2, 0])
    np.testing.assert_array_equal(stack.places, [0, 1, 3])
    assert stack.has_gaps and stack.voxel_mm3 == 3.0
    whole = stack.fill(np.arange(4)[:, None, None] * np.ones((1, 2, 2)))
    np.testing.assert_array_equal(whole[:, 0, 0], [3, 2, 0, 0])
    assert not Stack(np.arange(2), np.arange(2), 1.0).has_gaps


def test_anomalies_that_were_drawn_on_slices_are_no_bodies():
    assert not list(find_stacks(Test(has_clean=True)))


def test_scans_weigh_the_same_and_lesions_are_pooled():
    rows = [("p", 3, 1, 0, 0.25, 5.0, 2.0, 1.0), ("q", 1, 1, 2, 0.5, 1.0, 4.0, 0.0),
            ("r", 0, 0, 4, np.nan, 0.0, 1.0, 0.0)]
    cases = pd.DataFrame([*rows, ("r", *[np.nan] * 7)], columns=["patient_id", *LesionVolumes.columns])
    found = LesionVolumes().summarise(cases, PARAMS, 0)
    assert (found["n_volumes"], found["n_volumes_with_lesion"], found["n_lesions_3d"]) == (3, 2, 4)
    assert found["n_volumes_with_gaps"] == 1
    assert (found["lesion_sensitivity_3d"], found["lesion_dice_3d"]) == (0.5, 0.375)
    assert (found["false_lesions_per_scan"], found["volume_error_ml"]) == (2, pytest.approx(7 / 3))
    assert found["volume_error_ml_ci_low"] <= found["volume_error_ml"] <= found["volume_error_ml_ci_high"]

"""The inpainter's check: which squares count as healthy tissue and as lesion, and what its numbers say."""

import numpy as np
import pandas as pd
import pytest

from flipside.artifacts.probes import ProbeParams, Probes
from flipside.methods.checks.inpainter_probe import choose_squares
from flipside.report.inpainter_roc import draw_arms, draw_roc, inpainting_metrics, lesion_shares, roc_curves

PARAMS = ProbeParams(hole_fraction=0.25, stride_fraction=0.1, draws=10, covered=0.9)


def hole(slice_id, top, left, logit, side=4):
    return {"slice_id": slice_id, "top": top, "left": left, "side": side, "logit": logit}


@pytest.fixture
def probes():
    """Two abnormal slices (a: a lesion of 3 x 3; b: one that no square covers), two healthy ones."""
    slices = pd.DataFrame({"slice_id": list("abcd"), "logit": [4.0, 3.0, -2.0, -3.0]})
    holes = pd.DataFrame([
        hole("a", 0, 0, 3.9), hole("a", 2, 2, 3.0), hole("a", 4, 4, -1.0), hole("a", 9, 9, 4.1),
        hole("b", 0, 0, 3.0), hole("b", 6, 6, 1.0),
        hole("c", 0, 0, -2.1), hole("d", 0, 0, -2.9), hole("d", 5, 5, -2.9),
    ])
    lesions = {name: np.zeros((16, 16), np.uint8) for name in "abcd"}
    lesions["a"][5:8, 5:8] = 1
    lesions["b"][8:16, 8:16] = 1
    return Probes(slices, holes), {"a": 1, "b": 1, "c": 0, "d": 0}, lesions


def test_shares_of_the_lesion_that_squares_cover(probes):
    found = lesion_shares(probes[0].holes, probes[2])
    assert found.tolist() == pytest.approx([0, 1 / 9, 1, 0, 0, 4 / 64, 0, 0, 0])


def test_arms_are_drawn_from_the_right_squares_and_nothing_is_left_out_silently(probes):
    arms = draw_arms(*probes, PARAMS, seed=1)
    assert set(arms["slice_id"]) == {"a", "c", "d"} and len(arms) == 3 * 10
    of_a = arms[arms["slice_id"] == "a"]
    assert set(of_a["healthy"]) == {3.9, 4.1}  # neither the square on the lesion's edge nor the one on it
    assert set(of_a["lesion"]) == {-1.0} and set(of_a["original"]) == {4.0}
    healthy = arms[arms["label"] == 0]
    assert (healthy["lesion"] == healthy["original"]).all()  # only lesions are inpainted in that arm
    metrics = inpainting_metrics(arms, n_slices=4)
    assert (metrics["n_abnormal"], metrics["n_healthy"], metrics["n_left_out"]) == (1, 2, 1)
    assert metrics["logit_shift_lesion"] == pytest.approx(-5.0)
    assert metrics["logit_shift_ratio"] == pytest.approx(abs(of_a["healthy"].mean() - 4.0) / 5.0)
    assert draw_arms(*probes, PARAMS, seed=1).equals(arms)


def test_auc_falls_only_where_lesions_are_inpainted():
    rng = np.random.default_rng(0)
    label = np.arange(40) % 2
    original = np.where(label, 2.0, -2.0) + rng.normal(size=40)
    arms = pd.concat([pd.DataFrame({"draw": draw, "slice_id": np.arange(40).astype(str), "label": label,
                                    "original": original, "healthy": original + 0.01 * rng.normal(size=40),
                                    "lesion": np.where(label, -2 + rng.normal(size=40), original)})
                      for draw in range(10)])
    metrics = inpainting_metrics(arms, 40)
    assert metrics["auc_original"] > 0.9 and metrics["auc_healthy"] == pytest.approx(metrics["auc_original"], abs=0.02)
    assert 0.3 < metrics["auc_lesion"] < 0.7
    curves = roc_curves(arms)
    assert curves.groupby("arm")["draw"].nunique().to_dict() == {"original": 1, "healthy": 10, "lesion": 10}
    texts = [text.get_text() for text in draw_roc(curves, metrics).axes[0].get_legend().get_texts()]
    assert [text.split(", ")[0] for text in texts] == ["as they are", "healthy tissue inpainted", "lesion inpainted"]


def test_without_lesion_masks_there_are_counts_alone(probes):
    answers, labels, lesions = probes
    arms = draw_arms(answers, labels, {name: 0 * lesion for name, lesion in lesions.items()}, PARAMS, seed=1)
    assert inpainting_metrics(arms, 4) == {"n_abnormal": 0, "n_healthy": 2, "n_left_out": 2}


def test_squares_are_probed_where_the_organ_is():
    organ = np.zeros((16, 20), bool)
    organ[0:5, 0:5] = True
    corners = choose_squares(organ, side=4, stride=2)
    shares = {tuple(corner): organ[corner[0]:corner[0] + 4, corner[1]:corner[1] + 4].mean() for corner in corners}
    assert (0, 0) in shares and min(shares.values()) >= 0.25 and (8, 8) not in shares
    every = [(top, left) for top in range(0, 13, 2) for left in range(0, 17, 2)]
    assert {corner for corner in every if organ[corner[0]:corner[0] + 4, corner[1]:corner[1] + 4].mean() >= 0.25
            } == set(shares)


def test_a_small_organ_has_its_square_and_no_organ_has_all():
    organ = np.zeros((16, 16), bool)
    assert len(choose_squares(organ, side=8, stride=4)) == 9
    organ[3, 3] = True
    assert choose_squares(organ, side=8, stride=4).tolist() == [[0, 0]]

"""Flips count while the image is kept, and destroyed images come last, on any data."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from flipside.core import row_batches
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.bounded_flips import (
    GREATEST,
    SWEEP,
    YARDSTICK_SIGMA,
    BoundedFlips,
    change_to_blur,
    flips_by_bound,
)
from flipside.metrics.families.counterfactual_validity import CounterfactualValidity
from flipside.report.tables import destroys_image, markdown_table, ranking

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")


def flip_cases(rows):
    return pd.DataFrame(rows, columns=["f_x", "f_x_cf", "judge_x", "judge_x_cf", "change_to_blur"])


ROWS = [
    (0.9, 0.1, 0.9, 0.2, 0.10),  # counts
    (0.9, 0.1, 0.9, 0.2, 0.40),  # on the bound: counts
    (0.9, 0.1, 0.9, 0.2, 0.41),  # both call it healthy, but too much changed
    (0.9, 0.1, 0.9, 0.5, 0.10),  # the judge is not convinced
    (0.9, 0.5, 0.9, 0.1, 0.10),  # the classifier is not
    (0.9, 0.1, 0.4, 0.1, 0.10),  # the judge never called it abnormal
    (0.4, 0.1, 0.9, 0.1, 0.10),  # nor did the classifier
]


def test_a_flip_counts_where_both_networks_turn_and_little_changes():
    found = BoundedFlips().summarise(flip_cases(ROWS), PARAMS, 0)
    assert (found["n_bounded_flip_rate"], found["bounded_flip_rate"]) == (5, 2 / 5)
    assert found["bounded_flip_rate_ci_low"] < 2 / 5 < found["bounded_flip_rate_ci_high"]
    assert (found["n_flips_beyond_bound"], found["flips_beyond_bound"]) == (3, 1 / 3)
    assert set(found) == {"n_bounded_flip_rate", "bounded_flip_rate", "bounded_flip_rate_ci_low",
                          "bounded_flip_rate_ci_high", "n_flips_beyond_bound", "flips_beyond_bound"}


def test_over_no_case_there_is_no_rate():
    found = BoundedFlips().summarise(flip_cases(ROWS).assign(f_x=0.1), PARAMS, 0)
    assert found == {"n_bounded_flip_rate": 0, "n_flips_beyond_bound": 0}


def test_the_sweep_agrees_with_the_rate_at_the_bound_and_grows():
    table = flips_by_bound({"a": flip_cases(ROWS), "maps only": flip_cases(ROWS).assign(judge_x=np.nan)})
    assert set(table["method"]) == {"a"} and set(table["n"]) == {5}
    rates = table.set_index("bound")["bounded_flip_rate"]
    assert rates[0.0] == 0 and rates[0.1] == 1 / 5 and rates[0.4] == 2 / 5 and rates[0.425] == rates.iloc[-1] == 3 / 5
    assert list(rates.index) == list(SWEEP) and rates.is_monotonic_increasing


def test_change_is_measured_by_what_a_blur_of_the_slice_changes():
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64)).astype(np.float16)
    blurred = np.stack([gaussian_filter(image.astype(float), 3, mode="nearest") for image in images])
    np.testing.assert_allclose(change_to_blur(images, blurred), 1)
    half = images + 0.5 * (blurred - images)
    np.testing.assert_allclose(change_to_blur(images, half), 0.5)
    np.testing.assert_array_equal(change_to_blur(images, images), 0)
    # Another window, another size of the same picture: the same number.
    np.testing.assert_allclose(change_to_blur(0.3 * images.astype(float), 0.3 * half), 0.5)
    large = [np.kron(np.asarray(stack, float), np.ones((2, 2))) for stack in (images, half)]
    np.testing.assert_allclose(change_to_blur(*large), 0.5, atol=0.01)


def test_on_a_slice_that_is_its_own_blur_any_change_is_too_much():
    flat = np.full((2, 8, 8), 0.5)
    changed = flat.copy()
    changed[1, 0, 0] = 0.6
    np.testing.assert_array_equal(change_to_blur(flat, changed), [0, GREATEST])


def test_channels_and_batches_do_not_matter(monkeypatch):
    generator = np.random.default_rng(1)
    images, others = generator.uniform(-1, 1, (2, 5, 16, 24))
    whole = change_to_blur(images, others)
    colour = [np.repeat(stack[:, None], 3, axis=1) for stack in (images, others)]
    np.testing.assert_allclose(change_to_blur(*colour), whole)
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 2 * 16 * 24)
    np.testing.assert_array_equal(change_to_blur(images, others), whole)


def pictures(kind):
    """Slices (6,64,64) of very different kinds: noise, a smooth field, mostly air, nearly one grey, edges."""
    generator = np.random.default_rng(2)
    noise = generator.uniform(-1, 1, (6, 64, 64))
    if kind == "noise":
        return noise
    if kind == "smooth":
        return np.stack([gaussian_filter(image, 6, mode="nearest") for image in noise])
    if kind == "air":
        return np.where(np.hypot(*(np.mgrid[:64, :64] - 32)) < 12, noise, -1.0)
    if kind == "grey":
        return 0.01 * noise
    return np.sign(np.stack([gaussian_filter(image, 4, mode="nearest") for image in noise]))


@pytest.mark.parametrize("kind", ["noise", "smooth", "air", "grey", "edges"])
def test_no_constant_image_and_no_blur_passes_a_bound_below_one_half(kind):
    images = pictures(kind)
    for grey in (0.0, -1.0, "mean", "median"):
        level = {"mean": images.mean(axis=(1, 2)), "median": np.median(images, axis=(1, 2))}.get(grey, np.full(6, grey))
        constant = np.broadcast_to(np.reshape(level, (6, 1, 1)), images.shape)
        assert change_to_blur(images, constant).min() > 0.5
    sigma = YARDSTICK_SIGMA * 64
    for factor in (1, 1.5, 3):
        blurred = np.stack([gaussian_filter(image, factor * sigma, mode="nearest") for image in images])
        assert change_to_blur(images, blurred).min() > 0.9


def test_destroyed_images_flip_everything_and_yet_come_last():
    images = pictures("air")
    lesion = images.copy()
    lesion[:, 30:34, 30:34] = 1.0  # what makes a slice abnormal
    made = {
        "a_blur": np.stack([gaussian_filter(image, 3, mode="nearest") for image in lesion]),
        "a_grey": np.zeros_like(lesion),
        "honest": images,
        "weak": np.where(np.arange(6)[:, None, None] < 1, images, lesion),
        "idle": lesion,
    }
    metrics = {}
    for method, counterfactuals in made.items():
        answer = np.where((counterfactuals[:, 30:34, 30:34] > 0.99).all(axis=(1, 2)), 0.99, 0.01)  # of both networks
        cases = pd.DataFrame({"f_x": 0.99, "judge_x": 0.99, "f_x_cf": answer, "judge_x_cf": answer,
                              "change_to_blur": change_to_blur(lesion, counterfactuals)})
        metrics[method] = {**CounterfactualValidity().summarise(cases, PARAMS, 0),
                           **BoundedFlips().summarise(cases, PARAMS, 0)}
    for bought in ("success_rate", "cv", "judge_flip_rate"):
        assert metrics["a_blur"][bought] == metrics["a_grey"][bought] == metrics["honest"][bought] == 1
        assert ranking(metrics, bought) == ["honest", "weak", "idle", "a_blur", "a_grey"]  # which have no right to it
    assert ranking(metrics, "bounded_flip_rate") == ["honest", "weak", "idle", "a_blur", "a_grey"]
    assert [metrics[method]["bounded_flip_rate"] for method in made] == [0, 0, 1, pytest.approx(1 / 6), 0]
    assert [method for method in made if destroys_image(metrics[method])] == ["a_blur", "a_grey"]
    page = markdown_table(metrics, "bounded_flip_rate", ["a_blur", "a_grey"], "")
    assert "| a_blur *(control)* ‡ |" in page and "| honest |" in page
    assert "by destroying the image" in page and "a_blur (6 of 6), a_grey (6 of 6)" in page

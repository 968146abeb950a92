"""Rules that find thresholds without lesion masks, on drawn anomalies and against slow references."""

import numpy as np
import pytest
from skimage import filters

from flipside.cohort.anomalies import Anomaly, AnomalyParams, add_anomaly, draw_anomaly
from flipside.masks.extraction.label_free import RULES, LabelFreeParams, fit_rule, mark
from flipside.masks.extraction.thresholds import binarise
from tests.parameters import project_parameters

SIZE, STEPS = 64, ["open", "close", "largest_component"]
PER_IMAGE = {"otsu_per_image": filters.threshold_otsu, "triangle_per_image": filters.threshold_triangle,
             "li_per_image": filters.threshold_li, "yen_per_image": filters.threshold_yen}


def fitted(rule="share_of_maximum", background="median", healthy=None, **own):
    defaults = {"smooth_px": 1, "share": 0.5, "window": 0.1, "quantile": 0.99}
    params = LabelFreeParams(rule=rule, background=background, **defaults | own)
    return fit_rule(params, healthy)


def drawn(count=40):
    """Slices with an organ, clean and with COIN's anomalies as params.yaml has them, and the anomalies' masks."""
    params = AnomalyParams(**project_parameters()["anomalies"] | {"probability": 1.0})
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    organ = (np.hypot((rows - 30) / 14, (columns - 20) / 9) < 1).astype(np.uint8)
    brightness = np.linspace(0.1, 0.7, count).reshape(-1, 1, 1)  # of the organ; where it is bright, anomalies clip at 1
    clean = generator.normal(-0.4, 0.05, (count, SIZE, SIZE)) + brightness * organ
    clean = clean.astype(np.float16)
    pairs = []
    for image in clean:
        anomaly = draw_anomaly(organ, params, generator)
        assert isinstance(anomaly, Anomaly)
        pairs.append(add_anomaly(image, anomaly, params))
    return clean, np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def mean_iou(masks, lesion):
    return np.mean([(mask & true).sum() / (mask | true).sum() for mask, true in zip(masks, lesion > 0, strict=True)])


def test_a_perfect_counterfactual_is_found_and_its_height_does_not_matter():
    clean, images, lesion = drawn()
    change = np.abs(images.astype(np.float32) - clean.astype(np.float32)) / 2  # what a perfect method would attribute
    rule = fit_rule(LabelFreeParams(**project_parameters()["masks"]["label_free"]))
    whole = binarise(change, rule, STEPS)
    assert mean_iou(whole, lesion) >= 0.90
    np.testing.assert_array_equal(binarise(change / 4, rule, STEPS), whole)


@pytest.mark.parametrize("background", ["minimum", "median"])
@pytest.mark.parametrize("rule", ["share_of_maximum", "share_of_greatest_mean", "share_of_weighted_mean",
                                  "otsu_per_image"])
def test_what_a_map_has_everywhere_counts_for_nothing(rule, background):
    maps = np.random.default_rng(1).integers(0, 96, (5, 12, 12)) / 128  # sums that floats hold exactly
    chosen = fitted(rule, background)
    np.testing.assert_array_equal(mark(maps + 0.25, chosen), mark(maps, chosen))
    assert mark(maps, chosen).any(axis=(1, 2)).all()


@pytest.mark.parametrize("smooth_px", [1, 3])
@pytest.mark.parametrize("background", ["zero", "minimum", "median"])
@pytest.mark.parametrize("rule", RULES)
def test_a_constant_map_is_marked_nowhere(rule, background, smooth_px):
    maps = np.stack([np.full((9, 9), 0.5), np.zeros((9, 9)), np.eye(9)]).astype(np.float16)
    chosen = fitted(rule, background, healthy=np.full((2, 9, 9), 0.1, np.float16), smooth_px=smooth_px)
    masks = mark(maps, chosen)
    assert not masks[:2].any() and masks.shape == maps.shape and masks.dtype == bool


@pytest.mark.parametrize("rule", PER_IMAGE)
def test_thresholds_per_image_are_scikit_images(rule):
    _, images, _ = drawn(6)
    maps = np.clip((images.astype(np.float32) + 1) / 2, 0, 1)
    expected = [one > PER_IMAGE[rule](one) for one in maps]
    np.testing.assert_array_equal(mark(maps, fitted(rule, "zero")), expected)


@pytest.mark.parametrize(("background", "base"), [("zero", lambda one: 0), ("minimum", np.min), ("median", np.median)])
def test_the_threshold_lies_at_a_share_of_the_height_of_the_smoothed_map(background, base):
    maps = np.random.default_rng(2).random((4, 8, 9)).astype(np.float32)
    for mask, one in zip(mark(maps, fitted(background=background, smooth_px=3, share=0.4)), maps, strict=True):
        padded = np.pad(one, 1, mode="edge")
        means = np.array([[padded[row:row + 3, column:column + 3].mean() for column in range(9)] for row in range(8)])
        threshold = base(means) + 0.4 * (means.max() - base(means))
        unclear = np.isclose(means, threshold, atol=1e-5)
        np.testing.assert_array_equal(mask[~unclear], (means > threshold)[~unclear])


def test_the_weighted_mean_lets_high_pixels_speak_and_knows_no_scale():
    maps = np.random.default_rng(4).random((3, 7, 8)).astype(np.float32)
    for mask, one in zip(mark(maps, fitted("share_of_weighted_mean", "zero", share=0.9)), maps, strict=True):
        weighted = sum(height**3 for height in one.ravel()) / sum(height**2 for height in one.ravel())
        np.testing.assert_array_equal(mask, one > 0.9 * weighted)
    plateau = np.zeros((1, 8, 8), np.float32)
    plateau[0, 2:5, 2:5] = 0.3
    assert mark(plateau, fitted("share_of_weighted_mean", share=0.99)).sum() == 9


def test_the_greatest_mean_is_of_a_window_that_grows_with_the_slice():
    maps = np.random.default_rng(5).random((3, 20, 30)).astype(np.float32)
    masks = mark(maps, fitted("share_of_greatest_mean", "zero", share=0.9, window=0.1))
    for mask, one in zip(masks, maps, strict=True):
        padded = np.pad(one, 1, mode="edge")  # 3 pixels of 30
        greatest = max(padded[row:row + 3, column:column + 3].mean() for row in range(20) for column in range(30))
        unclear = np.isclose(one, 0.9 * greatest, atol=1e-5)
        np.testing.assert_array_equal(mask[~unclear], (one > 0.9 * greatest)[~unclear])
    outlier = np.zeros((1, 30, 30), np.float32)
    outlier[0, 5:15, 5:15], outlier[0, 25, 25] = 0.4, 1.0
    larger = outlier.repeat(3, axis=1).repeat(3, axis=2)
    chosen = fitted("share_of_greatest_mean", share=0.9, window=0.1)
    assert mark(outlier, chosen).sum() == 101 and mark(larger, chosen).sum() == 9 * 101


def test_quantiles_of_healthy_maps_are_of_their_heights():
    healthy = np.random.default_rng(3).random((7, 6, 6)).astype(np.float32)
    heights = healthy - healthy.min(axis=(1, 2), keepdims=True)
    pixels, maxima = (fitted(rule, "minimum", healthy, quantile=0.8) for rule in ("healthy_quantile", "healthy_maxima"))
    assert pixels.threshold == pytest.approx(np.quantile(heights, 0.8))
    assert maxima.threshold == pytest.approx(np.quantile(heights.max(axis=(1, 2)), 0.8))
    np.testing.assert_array_equal(mark(healthy, maxima), heights > np.float32(maxima.threshold))


def test_a_rule_is_told_in_words():
    assert str(fitted(smooth_px=3)) == "share of maximum (share 0.5, background median, 3 x 3 mean)"

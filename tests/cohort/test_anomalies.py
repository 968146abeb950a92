import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from flipside.cohort.anomalies import Anomaly, AnomalyError, AnomalyParams, add_anomaly, draw_anomaly, plan_anomalies
from tests.cohort.extracted_fixture import ANOMALIES


def params(**changes) -> AnomalyParams:
    return AnomalyParams(**(ANOMALIES | changes))


def kidneys(size: int = 64) -> np.ndarray:
    organ = np.zeros((size, size), np.uint8)
    organ[20:34, 10:22] = 1
    organ[20:34, 42:54] = 1
    return organ


def draws(organ: np.ndarray, count: int, **changes) -> list[Anomaly | str]:
    return [draw_anomaly(organ, params(**changes), np.random.default_rng(seed)) for seed in range(count)]


def test_the_unwarped_blob_is_the_papers_gaussian_template():
    image = np.full((512, 512), -1, np.float16)
    changed, mask = add_anomaly(image, Anomaly(200, 300, 1.0, (1.0, 1.0), 0.0), params(template_fraction=20 / 512))
    rows, columns = np.mgrid[-9:10, -9:10] * 2 / 19  # the [-1,1] grid of 20 pixels
    template = np.exp(-(rows**2 + columns**2) / (2 * 0.4**2))
    np.testing.assert_allclose((changed[191:210, 291:310] + 1) / 2, 0.9 * template, atol=2e-3)
    np.testing.assert_array_equal(mask[191:210, 291:310], template > 0.25)
    assert 100 < mask.sum() < 140 and (changed != image).sum() <= 20 * 20


def test_the_sum_is_clipped_at_white():
    image = np.full((64, 64), 0.5, np.float16)
    changed, mask = add_anomaly(image, Anomaly(30, 30, 1.0, (1.0, 1.0), 0.0), params())
    assert changed.max() == 1 and changed[30, 30] == 1
    assert (changed >= image).all() and (changed[mask == 1] > image[mask == 1]).all()


def test_the_mask_is_the_whole_blob_even_outside_the_organ_and_at_the_border():
    anomaly = Anomaly(0, 63, 1.0, (1.0, 1.0), 0.0)
    changed, mask = add_anomaly(np.full((64, 64), -1, np.float16), anomaly, params())
    np.testing.assert_array_equal(mask, (changed.astype(float) + 1) / 2 > 0.9 * 0.25)
    assert mask[0, 63] == 1 and mask.sum() > 5


def test_scale_stretch_and_rotation_shape_the_blob():
    image = np.full((128, 128), -1, np.float16)

    def extent(anomaly: Anomaly) -> tuple[int, int]:
        rows, columns = np.nonzero(add_anomaly(image, anomaly, params(template_fraction=0.4))[1])
        return np.ptp(rows) + 1, np.ptp(columns) + 1

    full, half = extent(Anomaly(64, 64, 1, (1, 1), 0))[0], extent(Anomaly(64, 64, 0.5, (1, 1), 0))[0]
    assert full == pytest.approx(2 * half, abs=2)
    tall = extent(Anomaly(64, 64, 1, (1.2, 0.8), 0))
    assert tall[0] > 1.3 * tall[1]
    assert extent(Anomaly(64, 64, 1, (1.2, 0.8), np.pi / 2)) == tall[::-1]


def test_centres_lie_in_both_kidneys_within_the_shrunken_box():
    organ = kidneys(100)
    organ[:] = 0
    organ[10:50, 10:50], organ[60:95, 60:95], organ[0:4, 60:90] = 1, 1, 1  # the third part is the smallest
    drawn = draws(organ, 300, probability=1.0, bbox_margin=0.25)
    rows = np.array([anomaly.row for anomaly in drawn])
    columns = np.array([anomaly.column for anomaly in drawn])
    first = (rows >= 20) & (rows < 40) & (columns >= 20) & (columns < 40)
    second = (rows >= 68) & (rows < 87) & (columns >= 68) & (columns < 87)
    assert (first | second).all() and 100 < first.sum() < 200


def test_warps_stay_in_their_ranges_and_happen_as_often_as_asked():
    drawn = draws(kidneys(), 400, probability=1.0)
    assert all(0.75 <= anomaly.scale <= 1 for anomaly in drawn)
    assert all(0.8 <= factor <= 1.2 for anomaly in drawn for factor in anomaly.stretch)
    assert all(abs(anomaly.angle) <= np.pi / 2 for anomaly in drawn)
    for share in (np.mean([a.stretch != (1.0, 1.0) for a in drawn]), np.mean([a.angle != 0 for a in drawn])):
        assert share == pytest.approx(0.5, abs=0.1)


def test_the_share_of_anomalies_is_the_probability():
    drawn = draws(kidneys(), 1000)
    assert np.mean([isinstance(anomaly, Anomaly) for anomaly in drawn]) == pytest.approx(0.65, abs=0.05)


def test_a_slice_without_a_fitting_organ_stays_healthy_with_the_reason():
    small = np.zeros((64, 64), np.uint8)
    small[10:12, 10:13] = 1  # bounding box 6 px, 0.0015 * 64^2 = 6.1
    assert set(draws(small, 5, probability=1.0)) == {"organ part too small"}
    assert set(draws(np.zeros((64, 64), np.uint8), 5, probability=1.0)) == {"no organ"}
    with pytest.raises(AnomalyError, match="organ part too small"):
        plan_anomalies(small[None], ["a"], params(probability=1.0), 0)


def test_a_plan_is_frozen_and_each_slice_independent_of_the_others():
    organ = np.stack([kidneys()] * 12)
    names = [f"slice{number}" for number in range(12)]
    plan, outcomes = plan_anomalies(organ, names, params(draws_per_slice=3), 5)
    assert len(plan) == 36 and sum(outcomes.values()) == 36
    assert plan_anomalies(organ, names, params(draws_per_slice=3), 5)[0] == plan
    assert plan_anomalies(organ[4:], names[4:], params(draws_per_slice=3), 5)[0] == plan[12:]
    assert plan_anomalies(organ, names, params(draws_per_slice=3), 6)[0] != plan
    drawn = [anomaly for anomaly in plan if anomaly]
    assert len(set(drawn)) == len(drawn)


def test_anomalies_on_real_kidneys_are_visible_and_start_in_the_kidney():
    root = os.environ.get("FLIPSIDE_TEST_DATA")
    if not root or not (Path(root) / "curvas").is_dir():
        pytest.skip("FLIPSIDE_TEST_DATA is not set or has no curvas")
    changes = []
    for file in sorted((Path(root) / "curvas/masks").glob("*.png"))[::6]:
        colours = np.asarray(Image.open(file).convert("RGB").resize((96, 96), Image.NEAREST)).astype(int)
        kidney = ((colours[..., 0] > 150) & (colours[..., 1] > 150) & (colours[..., 2] < 100)).astype(np.uint8)
        grey = Image.open(file.parents[1] / "images" / file.name).convert("L").resize((96, 96), Image.BILINEAR)
        image = (np.asarray(grey) / 127.5 - 1).astype(np.float16)
        anomaly = draw_anomaly(kidney, params(probability=1.0, template_fraction=0.125), np.random.default_rng(0))
        if isinstance(anomaly, str):
            continue
        changed, mask = add_anomaly(image, anomaly, params(template_fraction=0.125))
        assert kidney[anomaly.row, anomaly.column] == 1 and ndimage.label(mask)[1] == 1
        changes.append(float((changed - image)[mask == 1].mean()))
    assert len(changes) >= 5 and np.median(changes) > 0.4

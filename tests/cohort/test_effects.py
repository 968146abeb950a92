"""The effect-map images: where effects are, how large, and that labels and places follow from seed and number."""

import numpy as np
import pytest
from PIL import Image

from flipside.cohort.effects import EffectParams, draw_effect, draw_images, write_images
from flipside.metrics.families.overlap import cross_correlation

BOXES = EffectParams(images=8, size=112, blur=2.5, deviation=50, form="boxes", effect=100, extent=20, offset=32,
                     jitter=(-5, 4))
DISC = EffectParams(images=8, size=128, blur=2.5, deviation=50, form="disc", effect=500, extent=8, offset=40,
                    jitter=(0, 0))


def test_boxes_are_in_the_centre_and_in_one_of_two_corners():
    places = []
    for number in range(60):
        effect = draw_effect(BOXES, np.random.default_rng(number))
        assert effect[46:66, 46:66].all() and effect.sum() == 2 * 20 * 20  # apart from each other, whole
        rows, columns = np.nonzero(effect & ~np.pad(np.ones((20, 20), bool), 46))
        places.append((rows.min() + 10 - 56, columns.min() + 10 - 56))
    places = np.array(places)
    corner = np.sign(places[:, 0])
    assert (np.sign(places[:, 1]) == corner).all() and 0.3 < (corner > 0).mean() < 0.7
    away = places - 32 * corner[:, None]
    assert away.min() == -5 and away.max() == 4


def test_the_disc_is_in_a_corner():
    effect = draw_effect(DISC, np.random.default_rng(0))
    rows, columns = np.nonzero(effect)
    assert abs(rows.mean() - 64) == abs(columns.mean() - 64) == pytest.approx(40)
    assert np.ptp(rows) == np.ptp(columns) == 16


@pytest.mark.parametrize(("changes", "message"), [
    ({"size": 64}, r"reaches 47 pixels.*size 64"), ({"jitter": (4, -5)}, r"jitter must be \[low, high\]"),
    ({"form": "disc", "extent": 25}, "reaches 62 pixels"),
])
def test_an_effect_that_would_be_cut_off_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EffectParams(**BOXES.model_dump() | changes)


def test_an_image_fills_its_range_and_is_brighter_where_the_effect_is():
    rng = np.random.default_rng(1)
    effect = draw_effect(BOXES, rng)
    image = draw_images(BOXES, effect, rng)[0].astype(float)
    assert image.min() == 0 and image.max() == 255
    # 100 against a deviation of 50: two deviations of the background.
    assert image[effect].mean() - image[~effect].mean() == pytest.approx(2 * image[~effect].std(), rel=0.35)


def test_the_image_without_its_effect_bounds_what_a_map_without_sign_can_reach():
    """The README's bound: scaled on its own, the image without effect differs in the background too, the other way."""
    changes, effects = [], []
    for number in range(200):
        effect = draw_effect(BOXES, np.random.default_rng(number))
        abnormal, clean = draw_images(BOXES, effect, np.random.default_rng(number))
        changes.append(abnormal.astype(float) - clean)
        effects.append(effect)
    changes, effects = np.stack(changes), np.stack(effects)
    assert cross_correlation(changes, effects).mean() == pytest.approx(0.968, abs=0.01)
    assert cross_correlation(np.abs(changes), effects).mean() == pytest.approx(0.80, abs=0.02)


def test_half_of_the_images_are_healthy_and_the_same_seed_gives_the_same_files(tmp_path):
    for folder in ("one", "other"):
        write_images(BOXES, 7, tmp_path / folder, range(BOXES.images))
    files = sorted((tmp_path / "one").rglob("*.png"))
    assert len(files) == 24
    for file in files:
        assert file.read_bytes() == (tmp_path / "other" / file.relative_to(tmp_path / "one")).read_bytes()
    abnormal = [np.asarray(Image.open(tmp_path / f"one/effects/{number:05d}.png")).any() for number in range(8)]
    assert abnormal == [False, True] * 4
    for number, has_effect in enumerate(abnormal):
        image, clean = (np.asarray(Image.open(tmp_path / "one" / name / f"{number:05d}.png"))
                        for name in ("images", "clean"))
        assert np.array_equal(image, clean) != has_effect and clean.min() == 0 and clean.max() == 255

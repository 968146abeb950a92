import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.filters import threshold_otsu

from flipside.core import row_batches
from flipside.masks.extraction.label_free import RULES, LabelFreeParams, fit_rule
from flipside.masks.extraction.thresholds import (
    POLICIES,
    MaskError,
    MaskParams,
    binarise,
    candidates,
    choose,
    gated,
    iou_by_threshold,
    otsu,
    read_cuts,
    share_curve,
    write_cuts,
)

NUMBERS = [policy for policy in POLICIES if policy != "label_free"]  # policies with one threshold for all maps
ORDERS = ([], ["open"], ["open", "close"], ["open", "close", "largest_component"],
          ["close", "largest_component", "open"])
RULE = {"rule": "share_of_maximum", "background": "median", "share": 0.5, "window": 0.1, "quantile": 0.99,
        "smooth_px": 1}
PARAMS = MaskParams(label_free=RULE, gate=True, inside_organ=False, fixed=0.25, sweep_step=0.1,
                    morphology=["open", "close", "largest_component"])


def with_params(**changes):
    return MaskParams(**(PARAMS.model_dump() | changes))


def blobs(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps float16 in [0,1] that find square lesions badly, and the lesions."""
    generator = np.random.default_rng(seed)
    lesion = np.zeros((count, size, size), np.uint8)
    for mask in lesion:
        row, column = generator.integers(1, size - 7, 2)
        mask[row:row + 6, column:column + 5] = 1
    maps = 0.4 * np.roll(lesion, 2, axis=2) + 0.6 * generator.random(lesion.shape) ** 2
    return maps.astype(np.float16), lesion


def brute_force(maps, lesion, threshold, steps):
    masks = binarise(maps, threshold, steps)
    return [(mask & true).sum() / (mask | true).sum() for mask, true in zip(masks, lesion > 0, strict=True)]


@pytest.mark.parametrize("steps", ORDERS)
def test_the_search_scores_the_masks_that_are_written(steps, monkeypatch):
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 3 * 16 * 16)  # several batches, the last one smaller
    maps, lesion = blobs(7, 16, 0)
    cut = candidates(with_params(sweep_step=0.01), 0.3333)
    expected = np.array([brute_force(maps, lesion, t, steps) for t in cut]).T
    np.testing.assert_allclose(iou_by_threshold(maps, lesion, cut, steps), expected, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float16, (2, 4, 4), elements=st.sampled_from([0, 0.07, 0.0701, 0.25, 0.5, 0.99, 1])),
       st.sampled_from([0.01, 0.05, 0.25]))
def test_values_on_a_threshold_fall_below_it_in_search_and_mask_alike(maps, step):
    lesion = np.zeros((2, 4, 4), np.uint8)
    lesion[:, 1:3, 1:3] = 1
    cut = candidates(with_params(sweep_step=step), 0.5)
    expected = np.array([brute_force(maps, lesion, t, []) for t in cut]).T
    np.testing.assert_allclose(iou_by_threshold(maps, lesion, cut, []), expected, rtol=1e-12)
    assert not binarise(maps, 1.0, []).any()


def test_a_map_of_zeros_gives_an_empty_mask_at_every_threshold():
    maps = np.zeros((2, 8, 8), np.float16)
    lesion = np.ones_like(maps, np.uint8)
    assert not binarise(maps, 0.0, PARAMS.morphology).any()
    assert not iou_by_threshold(maps, lesion, candidates(PARAMS, 0.0), []).any()


def test_the_sweep_reaches_from_0_to_1_and_holds_the_label_free_thresholds():
    cut = candidates(with_params(fixed=0.255, sweep_step=0.01), 0.123)
    assert len(cut) == 103 and cut[0] == 0 and cut[-1] == 1 and {0.07, 0.255, 0.123} <= set(cut)


def test_otsu_is_scikit_images_of_all_pixels_together(monkeypatch):
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 2 * 16 * 16)
    maps, _ = blobs(9, 16, 1)
    rows = np.array([0, 2, 3, 7, 8])
    assert otsu(maps, rows) == pytest.approx(threshold_otsu(maps[rows].astype(np.float32)), abs=1e-6)
    assert otsu(np.full((2, 4, 4), 0.5, np.float16), np.arange(2)) == 0.5


def project(seed=0, count=24):
    maps, lesion = blobs(count, 16, seed)
    index = pd.DataFrame({"split": np.repeat(["val", "test"], count // 2), "label": 1, "called_healthy": False})
    index.loc[::4, "label"] = 0
    return maps, lesion, index


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_val_is_best_on_val_and_no_other_threshold_beats_the_oracle_on_test(seed):
    maps, lesion, index = project(seed)
    chosen, curves = choose(maps, lesion, index, PARAMS)
    for suffix, steps in (("", PARAMS.morphology), ("_raw", [])):
        for best, split in (("val", "val"), ("oracle", "test")):
            rows = np.flatnonzero((index["split"] == split) & (index["label"] == 1))
            score = {policy: np.mean(brute_force(maps[rows], lesion[rows], chosen[policy + suffix], steps))
                     for policy in NUMBERS}
            assert score[best] == pytest.approx(max(score.values()))
            assert score[best] == pytest.approx(curves[f"iou_{split}{suffix}"].max())


def test_neither_val_nor_otsu_looks_at_the_test_split():
    maps, lesion, index = project()
    chosen, _ = choose(maps, lesion, index, PARAMS)
    test = (index["split"] == "test").to_numpy()
    maps, lesion = maps.copy(), lesion.copy()
    maps[test], lesion[test] = 1 - maps[test], np.roll(lesion[test], 5, axis=1)
    changed, _ = choose(maps, lesion, index, PARAMS)
    assert all(changed[name] == chosen[name] for name in chosen if not name.startswith("oracle"))
    assert changed["oracle"] != chosen["oracle"]


def test_slices_called_healthy_have_no_say_in_val():
    maps, lesion, index = project()
    chosen, _ = choose(maps, lesion, index, PARAMS)
    lesion = lesion.copy()
    lesion[index["label"] == 0] = 1
    assert choose(maps, lesion, index, PARAMS)[0] == chosen


def test_without_lesion_masks_only_the_label_free_policies_remain():
    maps, _, index = project()
    chosen, curves = choose(maps, None, index, PARAMS)
    assert set(chosen) == {f"{policy}{suffix}" for policy in ("label_free", "fixed", "otsu") for suffix in ("", "_raw")}
    assert curves is None


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_lesions_is_named(split):
    maps, lesion, index = project()
    lesion = lesion * (index["split"] != split).to_numpy(np.uint8)[:, None, None]
    with pytest.raises(MaskError, match=f"the split {split} has no slice with a lesion"):
        choose(maps, lesion, index, PARAMS)


def test_explanations_without_validation_slices_are_refused():
    maps, lesion, index = project()
    with pytest.raises(MaskError, match="explain.splits"):
        choose(maps, lesion, index.assign(split="test"), PARAMS)


LABEL_FREE = fit_rule(LabelFreeParams(**RULE))
CARRIED = {"label_free": LABEL_FREE, "label_free_raw": LABEL_FREE, "fixed": 0.3, "fixed_raw": 0.3,
           "otsu": 0.1234, "otsu_raw": 0.1234, "val": 0.4321, "val_raw": 0.5}


def test_carried_thresholds_stay_and_only_the_oracle_is_chosen():
    maps, lesion, index = project()
    index["split"] = "test"
    chosen, curves = choose(maps, lesion, index, PARAMS, CARRIED)
    assert {name: chosen[name] for name in CARRIED} == CARRIED
    assert set(chosen) - set(CARRIED) == {"oracle", "oracle_raw"}
    assert list(curves) == ["threshold", "iou_test", "iou_test_raw"] and {0.1234, 0.4321} <= set(curves["threshold"])
    rows = np.flatnonzero(index["label"] == 1)
    score = {policy: np.mean(brute_force(maps[rows], lesion[rows], chosen[policy], PARAMS.morphology))
             for policy in NUMBERS}
    assert score["oracle"] == pytest.approx(max(score.values()))


def test_thresholds_of_a_run_without_lesion_masks_cannot_be_carried_to_lesion_masks():
    maps, lesion, index = project()
    label_free = {name: t for name, t in CARRIED.items() if not name.startswith("val")}
    assert choose(maps, None, index, PARAMS, label_free) == (label_free, None)
    with pytest.raises(MaskError, match="lack .'val', 'val_raw'"):
        choose(maps, lesion, index, PARAMS, label_free)


def test_rules_and_numbers_come_back_from_their_file(tmp_path):
    write_cuts(tmp_path / "thresholds.json", CARRIED)
    assert read_cuts(tmp_path / "thresholds.json") == CARRIED


def test_no_lesion_mask_has_a_say_in_the_label_free_rule():
    maps, lesion, index = project()
    index.loc[2::4, "label"] = 0
    for rule in RULES:
        params = with_params(label_free=RULE | {"rule": rule})
        expected = choose(maps, None, index, params)[0]["label_free"]
        assert choose(maps, np.roll(lesion, 3, axis=1), index, params)[0]["label_free"] == expected


def test_rules_of_healthy_maps_are_fitted_to_validation_slices_labelled_healthy_alone():
    maps, lesion, index = project()
    params = with_params(label_free=RULE | {"rule": "healthy_maxima", "background": "zero", "quantile": 0.5})
    healthy = ((index["split"] == "val") & (index["label"] == 0)).to_numpy()
    found = choose(maps, lesion, index, params)[0]["label_free"].threshold
    assert found == pytest.approx(np.median(maps[healthy].max(axis=(1, 2)).astype(np.float32)))
    changed = np.where(healthy[:, None, None], maps, 1 - maps)
    assert choose(changed, lesion, index, params)[0]["label_free"].threshold == found
    with pytest.raises(MaskError, match="no validation slice is labelled healthy.*healthy_maxima"):
        choose(maps, lesion, index.assign(label=1), params)


def test_the_gate_empties_slices_called_healthy_before_thresholds_are_chosen():
    maps, lesion, index = project()
    index["called_healthy"] = np.arange(len(index)) % 3 == 0
    chosen, curves = choose(maps, lesion, index, PARAMS)
    rows = np.flatnonzero((index["split"] == "val") & (index["label"] == 1))
    ious = iou_by_threshold(maps[rows], lesion[rows], curves["threshold"].to_numpy(), PARAMS.morphology)
    mean = (ious * ~index["called_healthy"].to_numpy()[rows, None]).mean(axis=0)
    np.testing.assert_allclose(curves["iou_val"], mean)
    assert chosen["val"] == curves["threshold"][mean.argmax()]
    assert gated(index, PARAMS).tolist() == index["called_healthy"].tolist()
    assert not gated(index, with_params(gate=False)).any()
    without = choose(maps, lesion, index, with_params(gate=False))[1]
    np.testing.assert_allclose(without["iou_val"], ious.mean(axis=0))


def test_the_curve_over_shares_scores_the_masks_of_the_rule():
    maps, lesion, index = project()
    curve = share_curve(maps, lesion, index, PARAMS)
    rows = np.flatnonzero((index["split"] == "test") & (index["label"] == 1))
    for line in curve.itertuples():
        rule = fit_rule(LabelFreeParams(**(RULE | {"share": line.share})))
        expected = np.mean(brute_force(maps[rows], lesion[rows], rule, PARAMS.morphology))
        assert line.iou_test == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("wrong", [{"sweep_step": 0.03}, {"fixed": 1.5}, {"morphology": ["erode"]},
                                   {"label_free": RULE | {"rule": "best"}}, {"label_free": RULE | {"share": 1.0}}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        with_params(**wrong)

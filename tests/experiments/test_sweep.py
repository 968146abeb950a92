"""The picture of a sweep: which experiments are points of it, what tells its lines apart."""

import pytest

from flipside.experiments.sweep import draw, points

PARAM, METRIC = "generators.coin.skips", "coin.iou_val"


def data(skips, iou, **others):
    coin = {} if iou is None else {"iou_val": iou, "iou_val_ci_low": iou - 0.1, "iou_val_ci_high": iou + 0.05}
    return {"params": {"params.yaml": {"data": {"generators": {"coin": {"skips": skips, **others}}, "seed": 1}}},
            "metrics": {"reports/metrics.json": {"data": {"coin": coin}}}}


def experiment(name, content, state="success", error=None):
    return {"name": name, "revs": [{"rev": name * 8, "data": content, "error": error}], "executor": {"state": state}}


def shown(*experiments):
    return [{"rev": "a" * 40, "name": "main", "data": data(3, 0.6), "experiments": list(experiments)}]


def test_the_commit_and_its_experiments_are_the_points_in_the_parameters_order():
    table, left_out = points(shown(experiment("e", data(5, 0.7)), experiment("f", data(1, 0.5))), PARAM, [METRIC])
    assert list(table["experiment"]) == ["f", "main", "e"]
    assert list(table[PARAM]) == [1, 3, 5]
    assert list(table[METRIC]) == [0.5, 0.6, 0.7]
    assert left_out == []


def test_what_has_not_succeeded_is_no_point_and_is_named():
    """DVC gives a failed experiment its commit's metrics, a queued one none."""
    unfinished = [experiment("failed", data(1, 0.6), "failed", {"msg": "failed"}),
                  experiment("queued", {**data(2, None), "metrics": {}}, "queued"),
                  experiment("without", data(4, None))]
    table, left_out = points(shown(*unfinished, experiment("e", data(5, 0.7))), PARAM, [METRIC])
    assert list(table["experiment"]) == ["main", "e"]
    assert left_out == ["failed", "queued", "without"]


def test_a_run_in_the_workspace_has_no_executor_and_is_a_point():
    own = {**experiment("e", data(5, 0.7)), "executor": None}
    assert list(points(shown(own), PARAM, [METRIC])[0]["experiment"]) == ["main", "e"]


@pytest.mark.parametrize(("param", "metric", "message"), [
    ("generators.coin.skip", METRIC, r"no result has 'generators\.coin\.skip'; alike are: .*generators\.coin\.skips"),
    (PARAM, "coin.iou_vall", r"no result has 'coin\.iou_vall'; alike are: .*coin\.iou_val"),
    ("seed", METRIC, r"no two results differ in 'seed': try `dvc exp run --queue -S 'seed="),
])
def test_unknown_and_unchanged_keys_are_refused(param, metric, message):
    with pytest.raises(ValueError, match=message):
        points(shown(experiment("e", data(5, 0.7))), param, [metric])


def test_other_parameters_that_differ_make_lines_of_their_own():
    grid = [experiment(f"{s}{f}", data(s, 0.1 * s, fuse=f)) for s in (1, 2) for f in ("clamp", "tanh")]
    baseline = {"rev": "a" * 40, "name": "main", "data": data(1, 0.3, fuse="none"), "experiments": grid}
    table, _ = points([baseline], PARAM, [METRIC])
    axes = draw(table, PARAM, [METRIC]).axes[0]
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines == {"generators.coin.fuse=clamp": [1, 2], "generators.coin.fuse=tanh": [1, 2],
                     "generators.coin.fuse=none": [1]}


def test_the_interval_is_drawn_as_it_is():
    table, _ = points(shown(experiment("e", data(5, 0.7))), PARAM, [METRIC])
    axes = draw(table, PARAM, [METRIC]).axes[0]
    bars = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]
    assert bars == [pytest.approx([0.5, 0.65]), pytest.approx([0.6, 0.75])]
    assert axes.get_ylabel() == "coin, IoU val (more is better)"


@pytest.mark.parametrize(("values", "scale"), [
    ([0.1, 0.2, 0.3], "linear"), ([-1.0, 1, 100], "linear"), ([1e-6, 1e-4, 1e-2], "symlog"),
    ([0.0, 1e-4, 1e-2], "symlog"),
])
def test_values_that_span_much_stand_on_a_logarithmic_axis(values, scale):
    table, _ = points([{"rev": "a" * 40, "name": "main", "data": data(values[0], 0.5), "experiments": [
        experiment(str(value), data(value, 0.5)) for value in values[1:]]}], PARAM, [METRIC])
    axes = draw(table, PARAM, [METRIC]).axes[0]
    assert axes.get_xscale() == scale
    assert axes.lines[0].get_xdata().tolist() == values


@pytest.mark.parametrize("values", [[[8, 16], [8, 16, 32]], ["clamp", "tanh"], [False, True], [None, "^a"], [None, 3]])
def test_values_that_are_no_numbers_stand_side_by_side(values):
    table, _ = points([{"rev": "a" * 40, "name": "main", "data": data(values[1], 0.5), "experiments": [
        experiment("e", data(values[0], 0.6))]}], PARAM, [METRIC])
    axes = draw(table, PARAM, [METRIC]).axes[0]
    assert sorted(text.get_text() for text in axes.get_xticklabels()) == sorted(map(str, values))
    assert sorted(axes.lines[0].get_xdata()) == [0, 1]

"""The series in experiments/: each row is a valid edit of params.yaml, in the words that DVC understands, and its
results stand beside the published ones."""

import functools
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from stages.common.params import ParamsError, check_all, value_at
from stages.evaluate import series as tool
from stages.evaluate.glossary import METRICS
from stages.evaluate.series import Series, edits, experiment_name, is_same, read_series, resolved
from stages.evaluate.series_table import collect, disagreements, markdown

ROOT = Path(__file__).parents[2]
SERIES = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def params():
    return yaml.safe_load(Path("params.yaml").read_text())


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("name", SERIES)
def test_what_is_printed_is_what_dvc_makes_of_params_yaml(tmp_path, monkeypatch, capsys, params, name, as_published):
    monkeypatch.setattr("sys.argv", ["series", name, "--print", "--seeds", "2",
                                     *(["--as-published"] if as_published else [])])
    tool.main()
    series, lines = read_series(name), capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(series.rows)
    for line, (row, seed) in zip(lines, ((row, seed) for row in series.rows for seed in (0, 1)), strict=True):
        wanted = edits(series, row, as_published, seed, params)
        if line.startswith("#"):
            assert wanted == {} and seed == 0
            continue
        command = shlex.split(line)
        assert command[:6] == ["dvc", "exp", "run", "--queue", "--name",
                               experiment_name(name, row, as_published, seed)]
        file = tmp_path / f"{row}.yaml"
        shutil.copy("params.yaml", file)
        apply_overrides(str(file), [after for before, after in zip(command, command[1:], strict=False)
                                    if before == "-S"])
        check_all(file)
        values = yaml.safe_load(file.read_text())
        for key, value in (resolved(series, row, as_published) | wanted).items():
            assert is_same(value_at(values, key), value)
        assert edits(series, row, as_published, seed, values) == {}
        assert values["classifiers"]["judge"] == params["classifiers"]["judge"]  # who shares an anchor in the file


@pytest.mark.parametrize("name", SERIES)
def test_rows_change_their_own_method_or_the_classifier_and_have_names_of_their_own(params, name):
    series = read_series(name)
    for row, spec in series.rows.items():
        for key in edits(series, row, True, 1, params):
            assert key.startswith((f"generators.{spec.method}.", f"methods.{spec.method}.",
                                   "classifiers.classifier.augmentation"))
    names = [experiment_name(name, row, published, seed) for row in series.rows for published in (False, True)
             for seed in (0, 1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SERIES)
def test_published_columns_stand_beside_metrics_that_exist(name):
    series = read_series(name)
    for row, spec in series.rows.items():
        assert spec.published.keys() <= series.measured_as.keys() and spec.method in {"coin", "singla", "coin_aligned"}
        assert {series.metric(row, column) for column in series.measured_as} <= METRICS.keys()


def switched(series, row):
    """Keys in which a row differs from the one before it."""
    after, before = (resolved(series, which, False) for which in (row, series.rows[row].after))
    return {key for key in after if before.get(key) != after[key]}


@pytest.mark.parametrize("name", SERIES)
def test_each_row_changes_what_it_sets_and_nothing_else(name):
    series = read_series(name)
    for row, spec in series.rows.items():
        if spec.after:
            assert switched(series, row) == set(spec.set), row


def test_appendix_a_turns_one_switch_at_a_time(params):
    series = read_series("appendix_a")
    turned = {row: {key.rpartition(".")[2] for key in switched(series, row)} for row in "BCDEFGH"}
    assert turned == {"B": {"fuse"}, **{row: {"skips"} for row in "CDEF"}, "G": {"reconstruction"}, "H": {"fuse"}}
    # G and its twin with one condition have the same weights, as far as both have them
    twins = [params["generators"][method] | {key.rpartition(".")[2]: value for key, value in
             edits(series, row, False, 0, params).items()} for row, method in (("G", "singla"),
                                                                               ("G_one_condition", "coin"))]
    shared = twins[0].keys() & twins[1].keys()
    assert {key for key in shared if twins[0][key] != twins[1][key]} == set()


def test_the_aligned_rows_build_up_to_the_default_method(params):
    """Experiment 5's generator, with COIN's fuse and the shared classifier, is what params.yaml has."""
    series = read_series("coin_aligned")
    assert set(edits(series, "connected", False, 0, params)) <= {"generators.coin_aligned.reconstruction"}  # weight 0
    assert resolved(series, "connected", False)["generators.coin_aligned.lambda_reconstruction"] == 0


def test_an_unknown_series_and_row_are_refused_with_those_there_are():
    with pytest.raises(ParamsError, match="no series 'nobody'.*coin_aligned"):
        read_series("nobody")
    with pytest.raises(ParamsError, match="no row 'last'; there are: coin, .*connected"):
        resolved(read_series("coin_aligned"), "last", False)


def row(**values):
    return {"method": "coin", "says": "", "published": {}} | values


def test_later_rows_win():
    series = Series(title="t", measured_as={}, rows={
        "a": row(set={"x": 1, "y": 1}, as_published={"z": 1}), "b": row(after="a", set={"y": 2}),
        "c": row(after="b", set={"z": 3})})
    take = functools.partial(resolved, series)
    assert take("c", False) == {"x": 1, "y": 2, "z": 3}
    assert take("b", True) == {"x": 1, "y": 2, "z": 1} and take("c", True)["z"] == 3


# The table.

SKIPS = Series(title="A paper", measured_as={"iou": "iou_fixed"}, rows={
    "none": row(set={"generators.coin.skips": 0}, published={"iou": 0.2}),
    "one": row(after="none", set={"generators.coin.skips": 1}, published={"iou": 0.4}),
    "all": row(after="one", set={"generators.coin.skips": 3}, published={"iou": 0.6}),
})


def data(skips, iou, seed_offset=0):
    metrics = {"coin": {"iou_fixed": iou, "iou_val": 0.9, "pixel_ap": 0.8, "fd_clf": 1.0, "seconds_training": 7.0}}
    params = {"profile": "cpu", "seed": 5, "generators": {"coin": {"skips": skips, "seed_offset": seed_offset}}}
    return {"params": {"params.yaml": {"data": params}}, "metrics": {"reports/metrics.json": {"data": metrics}}}


def experiment(name, content):
    return {"name": name, "revs": [{"rev": "b" * 40, "data": content, "error": None}], "executor": None}


def shown(*experiments):
    return [{"rev": "a" * 40, "name": "main", "data": data(3, 0.5), "experiments": list(experiments)}]


def test_results_are_found_by_name_and_a_row_that_is_params_yaml_is_the_commits_own():
    found, notes = collect(shown(
        experiment("s-one", data(1, 0.1)), experiment("s-one-seed1", data(1, 0.3, 1)),
        experiment("other", data(0, 1.0)), experiment("s-one-as-published", data(1, 0.99)),
        experiment("s-one-seedling", data(1, 0.99)),
    ), "s", SKIPS, False)
    assert found[["row", "seed", "experiment", "iou_fixed"]].to_numpy().tolist() == [
        ["one", 5, "s-one", 0.1], ["one", 6, "s-one-seed1", 0.3], ["all", 5, "main", 0.5]]
    assert notes == ["none: no result yet"]


def test_an_experiment_that_was_run_with_other_values_is_no_result():
    found, notes = collect(shown(experiment("s-one", data(2, 0.1))), "s", SKIPS, False)
    assert list(found["row"]) == ["all"]
    assert "s-one was run with another generators.coin.skips: left out" in notes


def test_the_table_has_ours_beside_the_published_and_says_where_they_part():
    found, notes = collect(shown(
        experiment("s-none", data(0, 0.4)), experiment("s-one", data(1, 0.1)),
        experiment("s-one-seed1", data(1, 0.3, 1)),
    ), "s", SKIPS, False)
    text = markdown("s", SKIPS, found, notes)
    assert "| one |  | coin | 2 | 0.200 (0.100 to 0.300) | 0.400 |" in text
    assert "| all |  | coin | 1 | 0.500 | 0.600 |" in text
    assert "IOU is `iou_fixed`" in text
    assert disagreements(SKIPS, found) == [
        "none to one: IOU gets worse here (0.400 to 0.200), the other way round in the publication (0.200 to 0.400)"]
    assert disagreements(SKIPS, found)[0] in text


def test_a_metric_that_no_run_has_is_said_and_left_empty():
    found, notes = collect(shown(experiment("s-one", data(1, 0.1))), "s", SKIPS, False)
    text = markdown("s", SKIPS, found.assign(iou_fixed=pd.NA), notes)
    assert "IOU was not measured in these runs" in text and "| one |  | coin | 1 | – | 0.400 |" in text

"""The ablations in experiments/: each row is a valid edit of params.yaml, written as DVC takes it, and its results are
set beside the published ones."""

import functools
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from flipside.cli.ablations import ablations
from flipside.cli.profile import apply_profile
from flipside.core.params import ParamsError, check_all, value_at
from flipside.metrics.registry import METRICS
from flipside.published.ablation_tables import (
    as_printed,
    besides,
    collect,
    differing,
    disagreements,
    markdown,
    significant,
)
from flipside.published.ablations import Ablation, edited, edits, experiment_name, is_same, read_ablation, resolved

ROOT = Path(__file__).parents[2]
ABLATIONS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def params():
    return yaml.safe_load(Path("params.yaml").read_text())


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("name", ABLATIONS)
def test_what_is_printed_is_what_dvc_makes_of_params_yaml(tmp_path, capsys, params, name, as_published):
    ablations(name, seeds=2, as_published=as_published, print_only=True)
    ablation, lines = read_ablation(name), capsys.readouterr().out.splitlines()
    trainings = [(row, seed) for row, spec in ablation.rows.items() for seed in (0, 1)
                 if seed == 0 or spec.method in params["generators"]]  # RISE and the CAMs are the same in every seed
    for line, (row, seed) in zip(lines, trainings, strict=True):
        wanted = edits(ablation, row, as_published, seed, params)
        if line.startswith("#"):
            assert wanted == {} and seed == 0
            continue
        command = shlex.split(line)
        assert command[:6] == ["dvc", "exp", "run", "--queue", "--name",
                               experiment_name(name, row, as_published, seed)]
        assert command[-1] == "evaluate"  # the stage that writes the metrics; the report can wait
        if seed == 0 and (row, 1) in trainings:
            continue  # the other one's command sets the same and the seed, and DVC takes long over either
        file = tmp_path / f"{row}.yaml"
        shutil.copy("params.yaml", file)
        shutil.copy("datasets.yaml", tmp_path)
        apply_overrides(str(file), [after for before, after in zip(command, command[1:], strict=False)
                                    if before == "-S"])
        check_all(file)
        values = yaml.safe_load(file.read_text())
        for key, value in (resolved(ablation, row, as_published) | wanted).items():
            assert is_same(value_at(values, key), value_at(params, key) if value is None else value)
        assert differing(values, edited(params, wanted)) == []
        assert edits(ablation, row, as_published, seed, values) == {}
        assert values["classifiers"]["judge"] == params["classifiers"]["judge"]  # who shares an anchor in the file


@pytest.mark.parametrize("name", ABLATIONS)
def test_rows_change_their_own_method_the_classifier_or_the_gate_and_have_names_of_their_own(params, name):
    ablation = read_ablation(name)
    for row, spec in ablation.rows.items():
        for key in edits(ablation, row, True, 1, params):
            assert key.startswith((f"generators.{spec.method}.", f"methods.{spec.method}.",
                                   "classifiers.classifier.augmentation", "masks.gate", "pseudo_masks."))
    names = [experiment_name(name, row, published, seed) for row in ablation.rows for published in (False, True)
             for seed in (0, 1)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ABLATIONS)
def test_published_columns_stand_beside_metrics_that_exist(name):
    ablation = read_ablation(name)
    for row, spec in ablation.rows.items():
        assert spec.published.keys() <= ablation.measured_as.keys()
        assert spec.method in {"coin", "singla", "coin_aligned", "impact", "rise", "score_cam", "layer_cam",
                               "flip_mask"}
        assert {ablation.metric(row, column) for column in ablation.measured_as} <= METRICS.keys()


# Row -> parameters in which it differs from the row that it comes after, and those more in which the published runs do.
FLIPPED = {
    "appendix_a": {"B": ("fuse", ""), "C": ("skips", ""), "D": ("skips", ""), "E": ("skips", ""), "F": ("skips", ""),
                   "G": ("reconstruction", ""), "H": ("fuse", ""),
                   "COIN": ("lambda_classifier lambda_total_variation", "")},
    "table_2": {"no_reconstruction": ("lambda_reconstruction", ""), "no_classifier": ("lambda_classifier", ""),
                "no_total_variation": ("lambda_total_variation", "")},
    "coin_aligned": {
        "dilated_reconstruction": ("reconstruction", ""),
        "aligned": ("alignment lambda_reconstruction", "lambda_total_variation classifier_sees compare"),
        "paired": ("data discriminator_condition kl_target", "learning_rate"),
        "relativistic": ("adversarial_loss gamma", "penalty_share"),
        "connected": ("classifier_features", "feature_scale"),
        "connected_dilated": ("reconstruction lambda_reconstruction", ""),
        "tanh_classifier": ("augmentation", ""),
        "black_hole_classifier": ("augmentation", "")},
    "impact": {"no_shape": ("lambda_total_variation lambda_area", "")},
    "table_1": {},
    "flip_mask": {"outline": ("grow change", ""), "verification": ("verify", ""), "transplants": ("share", ""),
                  "rounds": ("rounds", "")},
}


def whole(params, ablation, row, as_published):
    """All of params.yaml as a row has it."""
    return edited(params, edits(ablation, row, as_published, 0, params))


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("name", ABLATIONS)
def test_neighbours_differ_in_the_named_switches_and_in_no_other_parameter(params, name, as_published):
    ablation, found = read_ablation(name), {}
    for row, spec in ablation.rows.items():
        if spec.after:
            keys = differing(*(whole(params, ablation, which, as_published) for which in (spec.after, row)))
            assert {key.rpartition(".")[0] for key in keys} <= {
                f"generators.{spec.method}", f"methods.{spec.method}", "classifiers.classifier", "pseudo_masks",
                "pseudo_masks.transplants"}
            found[row] = {key.rpartition(".")[2] for key in keys}
    assert found == {row: {*switches.split(), *(more.split() if as_published else ())}
                     for row, (switches, more) in FLIPPED[name].items()}


def test_g_and_its_twin_with_one_condition_have_the_same_weights(params):
    ablation = read_ablation("appendix_a")
    twins = [whole(params, ablation, row, False)["generators"][method]
             for row, method in (("G", "singla"), ("G_one_condition", "coin"))]
    shared = twins[0].keys() & twins[1].keys()
    assert len(shared) > 15
    assert {key for key in shared if not is_same(twins[0][key], twins[1][key])} == set()


def test_as_published_all_rows_of_the_thesis_share_the_classifiers_flips_and_shifts(params):
    ablation = read_ablation("coin_aligned")
    steps = {row: value_at(whole(params, ablation, row, True), "classifiers.classifier.augmentation")
             for row in ablation.rows}
    names = {row: [step["name"] for step in own] for row, own in steps.items()}
    common = ["horizontal_flip", "vertical_flip", "affine"]
    assert names == {**dict.fromkeys(ablation.rows, common), "tanh_classifier": [*common, "tanh"],
                     "black_hole_classifier": ["black_holes", *common, "tanh"]}


@pytest.mark.parametrize("profile", ["cpu", "gpu", "paper", "smoke", "curvas"])
def test_the_aligned_rows_build_up_to_the_default_method(tmp_path, profile):
    """Experiment 5's generator with the dilated loss and the shared classifier is that of any profile."""
    file = tmp_path / "params.yaml"
    shutil.copy("params.yaml", file)
    shutil.copy("datasets.yaml", tmp_path)
    apply_profile(profile, file)
    params, ablation = yaml.safe_load(file.read_text()), read_ablation("coin_aligned")
    assert edits(ablation, "connected_dilated", False, 0, params) == {}
    gamma = "generators.coin_aligned.gamma"
    assert value_at(whole(params, ablation, "paired", False), gamma) == 0
    assert value_at(whole(params, ablation, "relativistic", False), gamma) == value_at(params, gamma) > 0


def test_an_unknown_ablation_and_row_are_refused_with_those_there_are():
    with pytest.raises(ParamsError, match="no ablation 'nobody'.*coin_aligned"):
        read_ablation("nobody")
    with pytest.raises(ParamsError, match="no row 'last'; there are: coin, .*connected"):
        resolved(read_ablation("coin_aligned"), "last", False)


def row(**values):
    return {"method": "coin", "says": "", "published": {}} | values


def test_later_rows_win():
    ablation = Ablation(title="t", measured_as={}, rows={
        "a": row(set={"x": 1, "y": 1}, as_published={"z": 1}), "b": row(after="a", set={"y": 2}),
        "c": row(after="b", set={"z": 3})})
    take = functools.partial(resolved, ablation)
    assert take("c", False) == {"x": 1, "y": 2, "z": 3}
    assert take("b", True) == {"x": 1, "y": 2, "z": 1} and take("c", True)["z"] == 3


def test_null_takes_params_yamls_own_value_again():
    ablation = Ablation(title="t", measured_as={}, rows={
        "a": row(set={"p.x": 0}), "b": row(after="a", set={"p.x": None})})
    params = {"profile": "cpu", "p": {"x": 7}}
    assert edits(ablation, "a", False, 0, params) == {"p.x": 0} and edits(ablation, "b", False, 0, params) == {}


@pytest.mark.parametrize(("first", "second", "same"), [
    ("5e-05", 0.00005, True), (0.00005, "5e-05", True), ("5e-05", 0.0005, False), ("clamp", 0.5, False),
    (5, 5.0, True), (True, 1, False), (None, "none", False), (None, None, True), ([0, 0.9], (0.0, "9e-1"), True),
    ([0.0], [0.0, 0.9], False), ([{"name": "a", "radius": [0.001, 1]}], [{"name": "a", "radius": ["1e-3", 1.0]}], True),
    ([{"name": "a", "p": 1}], [{"name": "a"}], False), ([1], 1, False),
])
def test_values_are_compared_as_yaml_and_dvc_write_them(first, second, same):
    assert is_same(first, second) is same and is_same(second, first) is same


def test_an_edit_leaves_the_given_parameters_alone():
    params = {"a": {"b": [1], "c": 2}, "seed": 5}
    assert edited(params, {"a.b": [2], "seed": 6}) == {"a": {"b": [2], "c": 2}, "seed": 6}
    assert params == {"a": {"b": [1], "c": 2}, "seed": 5}


# The table.

SKIPS = Ablation(title="A paper", measured_as={"iou": "iou_fixed"}, rows={
    "none": row(set={"generators.coin.skips": 0}, published={"iou": 0.2}),
    "one": row(after="none", set={"generators.coin.skips": 1}, published={"iou": 0.4}),
    "all": row(after="one", set={"generators.coin.skips": 3}, published={"iou": 0.6}),
})


def data(skips, iou, seed_offset=0, **others):
    metrics = {"coin": {"iou_fixed": iou, "iou_val": 0.9, "pixel_ap": 0.8, "fd_clf": 1.0, "seconds_training": 7.0}}
    params = {"profile": "cpu", "seed": 5, "generators": {"coin": {"skips": skips, "seed_offset": seed_offset,
                                                                           "learning_rate": 5e-05,
                                                                           "betas": [0.0, 0.9]}}, **others}
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


def test_an_experiment_counts_only_with_the_commits_own_parameters_otherwise():
    also = data(1, 0.1, filter={"window": [0, 1]}, runtime={"device": "cuda"})
    also["params"]["params.yaml"]["data"]["generators"]["coin"]["learning_rate"] = 0.1
    found, notes = collect(shown(experiment("s-one", also)), "s", SKIPS, False)
    assert list(found["row"]) == ["all"]
    assert "s-one also differs in generators.coin.learning_rate, filter.window: left out" in notes


def test_another_device_or_spelling_of_a_number_is_no_difference():
    alike = data(1, 0.1, runtime={"device": "cuda", "threads": 2})
    alike["params"]["params.yaml"]["data"]["generators"]["coin"] |= {"learning_rate": "5e-05", "betas": (0, 0.9)}
    found, notes = collect(shown(experiment("s-one", alike)), "s", SKIPS, False)
    assert list(found["row"]) == ["one", "all"] and notes == ["none: no result yet"]


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


def test_the_table_says_what_was_trained_for_how_long_and_how():
    found, notes = collect(shown(experiment("s-one", data(1, 0.1)), experiment("s-one-seed1", data(1, 0.3, 1))),
                           "s", SKIPS, False)
    text = markdown("s", SKIPS, found, notes)
    assert "Training of the generators: 3 runs, sum of seconds_training = 21 s; seeds 5, 6; profile cpu." in text
    assert "`flipside ablations s --seeds 2`" in text and "--as-published" not in text
    published = markdown("s", SKIPS, found, notes, as_published=True)
    assert "flipside ablations s --seeds 2 --as-published`" in published
    assert "flipside ablation-tables s --as-published`" in published
    twice = pd.concat([found, found[found["row"] == "all"].assign(row="none")])  # one run that is two rows
    assert "3 runs, sum of seconds_training = 21 s" in markdown("s", SKIPS, twice, notes)


def test_notes_and_what_the_published_runs_had_besides_stand_below_the_table():
    ablation = Ablation(title="A paper", measured_as={"iou": "iou_fixed", "iou_oracle": "iou_oracle"},
                        notes=["Mind this."], rows={"a_b": row(set={}, published={"iou": 0.02}, as_published={
                        "generators.coin.betas": [0.0, 0.999], "generators.coin.fuse": "tanh",
                        "classifiers.classifier.augmentation": [{"name": "tanh", "probability": 1.0}]})})
    assert besides(ablation) == ["a b: betas [0.0,0.999], fuse tanh, augmentation [tanh 1.0]"]
    own = data(3, 0.5)
    own["metrics"]["reports/metrics.json"]["data"]["coin"]["iou_oracle"] = 0.6
    found, notes = collect([{"rev": "a" * 40, "name": "main", "data": own, "experiments": []}], "s", ablation, False)
    text = markdown("s", ablation, found, notes)
    assert "* Mind this." in text and f"* {besides(ablation)[0]}" in text and "--as-published` sets it" in text
    assert "| IOU ours | IOU published | IOU ORACLE ours |" in text and "| 0.500 | 0.020 | 0.600 |" in text
    assert "IOU ORACLE, not published, is `iou_oracle`" in text and "an upper bound" in text


def test_a_step_of_the_publication_is_compared_each_row_by_its_own_metric():
    ablation = Ablation(title="t", measured_as={"cv": "cv_both_directions"}, rows={
        "G": row(set={"x": 0}, published={"cv": 0.9}), "between": row(set={"x": 1}),
        "COIN": row(after="between", published_after="G", set={"x": 2}, published={"cv": 0.95},
                    measured_as={"cv": "cv"})})
    found = pd.DataFrame({"row": ["G", "between", "COIN"], "cv_both_directions": [0.8, 0.1, 0.99],
                          "cv": [0.1, 0.2, 0.7], "iou_label_free": 0.5, "iou_val": 0.5, "pixel_ap": 0.5, "fd_clf": 1.0,
                          "seconds_training": 1.0})
    assert disagreements(ablation, found) == [
        "G to COIN: CV gets worse here (0.800 to 0.700), the other way round in the publication (0.900 to 0.950), "
        "by two metrics here as there"]
    without = ablation.model_copy(update={"rows": ablation.rows | {
        "COIN": ablation.rows["COIN"].model_copy(update={"published_after": None})}})
    assert disagreements(without, found) == []


@pytest.mark.parametrize("name", ABLATIONS)
def test_rows_that_others_are_compared_with_exist(name):
    rows = read_ablation(name).rows
    assert {spec.published_after for spec in rows.values()} - {None} <= rows.keys()
    if name == "appendix_a":
        assert rows["COIN"].published_after == "G" and "iou" in rows["G"].published


@pytest.mark.parametrize(("value", "ours", "published"), [
    (0.0, "0.000", "0.000"), (0.02, "0.0200", "0.020"), (0.646, "0.646", "0.646"), (0.0024, "0.00240", "0.0024"),
    (0.9542, "0.954", "0.9542"), (12.3456, "12.346", "12.3456"), (-0.0123456, "-0.0123", "-0.0123456"),
    (1.4e-35, "1.40e-35", "1.4e-35"),
])
def test_numbers_keep_three_significant_digits_and_published_ones_their_own(value, ours, published):
    assert (significant(value), as_printed(value)) == (ours, published)

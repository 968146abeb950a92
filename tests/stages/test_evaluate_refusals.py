"""What the stages that segment and evaluate refuse, and the remedy that they name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stages import evaluate, extract_masks
from tests.stages.project_of_two import METHODS, SECTIONS, rewrite_index, run, run_all


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.nan])
def test_a_spacing_that_cannot_be_is_refused_by_name(project_of_two, spacing):
    rewrite_index("data/slices", lambda table: table.assign(
        spacing_col_mm=table["spacing_col_mm"].where(table["slice_id"] != "scan8:7", spacing)))
    with pytest.raises(ValueError, match="spacing_col_mm of scan8:7.*extract_slices"):
        run_all()


def test_a_method_with_other_cases_is_named(project_of_two):
    for method in METHODS:
        run(extract_masks, "--method", method)
    rewrite_index("data/explanations/blind", lambda table: table.assign(slice_id=table["slice_id"].replace(
        "scan8:7", "scan99:0")))
    with pytest.raises(ValueError, match="method blind: .*31 of the 32 test slices.*scan8:7"):
        run(evaluate)


def test_masks_of_another_order_are_refused(project_of_two):
    for method in METHODS:
        run(extract_masks, "--method", method)
    rewrite_index("data/masks/good", lambda table: table.iloc[::-1])
    with pytest.raises(ValueError, match="data/masks/good/index.csv.*extract_masks@good"):
        run(evaluate)


@pytest.mark.parametrize(("instead", "message"), [
    ("scan99:0", "not in data/slices.*scan99:0"),  # unknown
    ("scan8:6", "twice.*scan8:6"),
    ("scan0:0", "lacks 1 val and test.*scan8:7"),  # a training slice
])
def test_explanations_of_other_slices_are_refused_before_masks_are_made(project_of_two, instead, message):
    rewrite_index("data/explanations/good",
                  lambda table: table.assign(slice_id=table["slice_id"].replace("scan8:7", instead)))
    with pytest.raises(ValueError, match=message):
        run(extract_masks, "--method", "good")
    assert not Path("data/masks/good").exists()


@pytest.mark.parametrize(("gone", "remedy"), [
    ("data/explanations/blind", "dvc repro explain@blind"), ("data/masks/blind", "dvc repro extract_masks@blind"),
    ("reports/training", "dvc repro train_generator@good"),
    ("data/judgements", "dvc repro judge_counterfactuals"), ("data/realism", "dvc repro measure_realism"),
    ("data/explanations/good/randomisation.json", "dvc repro explain@good"),
])
def test_a_missing_folder_is_named_with_the_stage_that_writes_it(project_of_two, gone, remedy):
    for method in METHODS:
        run(extract_masks, "--method", method)
    Path(gone).rename("elsewhere")
    with pytest.raises((ValueError, FileNotFoundError), match=remedy):
        run(evaluate)
    assert not Path("reports/metrics.json").exists()


def test_a_reference_that_is_no_method_is_refused_before_any_work(project_of_two):
    sections = SECTIONS | {"evaluate": SECTIONS["evaluate"] | {"reference_method": "coin"}}
    Path("params.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    with pytest.raises(ValueError, match="evaluate.reference_method` is 'coin'.*good, blind"):
        run(evaluate)


def test_an_upper_bound_that_is_no_method_is_refused_before_any_work(project_of_two):
    sections = SECTIONS | {"evaluate": SECTIONS["evaluate"] | {"upper_bound": "supervised"}}
    Path("params.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    with pytest.raises(ValueError, match="evaluate.upper_bound` is 'supervised'.*good, blind"):
        run(evaluate)


def test_distances_of_some_cases_alone_are_refused(project_of_two):
    for method in METHODS:
        run(extract_masks, "--method", method)
    file = Path("data/realism/good.csv")
    table = pd.read_csv(file).assign(lpips=0.5)
    table.loc[table["slice_id"] == "scan8:7", "lpips"] = np.nan
    table.to_csv(file, index=False)
    with pytest.raises(ValueError, match="realism/good.csv lacks distances.*measure_realism"):
        run(evaluate)

"""The loader of params.yaml and datasets.yaml: what is wrong is refused with file and full key, before any work."""

import importlib
import sys
from pathlib import Path

import pytest
import yaml

from flipside.core.params import (
    Params,
    ParamsError,
    check_all,
    load_section,
    load_value,
    read_datasets,
    read_params,
    stage_main,
)
from flipside.scans.layouts import DatasetParams
from tests.parameters import project_parameters, write_parameters

ROOT = Path(__file__).parents[2]


class Section(Params):
    rate: float
    steps: int
    names: list[str]


def written(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return file


def edited(tmp_path, edit):
    values = project_parameters()
    edit(values)
    write_parameters(tmp_path, values)
    return tmp_path / "params.yaml"


def test_the_committed_parameters_are_valid():
    check_all(ROOT / "params.yaml")


def test_scientific_notation_that_yaml_reads_as_text_is_a_number(tmp_path):
    file = written(tmp_path, "report: {rate: 1e-06, steps: 3, names: [a]}\n")
    assert yaml.safe_load(file.read_text())["report"]["rate"] == "1e-06"
    assert load_section("report", Section, file).rate == 1e-6


@pytest.mark.parametrize(("text", "message"), [
    ("report: {rate: 1, steps: 3, names: [a], typo: 1}", r"unknown parameter `report\.typo`.*rate, steps, names"),
    ("report: {rate: 1, names: [a]}", r"missing parameter `report\.steps`"),
    ("report: {rate: fast, steps: 3, names: [a]}", r"`report\.rate` is 'fast'"),
    ("report: {rate: 1, steps: 3, names: 7}", r"`report\.names` is 7"),
    ("seed: 1", r"missing parameter `report`"),
    ("metods: {}", r"params.yaml: unknown parameter `metods`; known are: .*methods"),
    ("datasets: {}", r"params.yaml: `datasets` belongs in datasets.yaml"),
    ("[1, 2]", r"expected a mapping"),
    ("a: [", r"not valid YAML"),
])
def test_wrong_parameters_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(ParamsError, match=message):
        load_section("report", Section, written(tmp_path, text))


def test_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(ParamsError, match=str(tmp_path / "params.yaml")):
        read_params(tmp_path / "params.yaml")
    written(tmp_path, "seed: 1")
    with pytest.raises(ParamsError, match=str(tmp_path / "datasets.yaml")):
        check_all(tmp_path / "params.yaml")


def test_scalars_are_typed(tmp_path):
    file = written(tmp_path, "seed: many\n")
    with pytest.raises(ParamsError, match="`seed` is 'many'"):
        load_value("seed", int, file)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda v: v["methods"]["rise"].update(maks=3), r"unknown parameter `methods\.rise\.maks`"),
    (lambda v: v["generators"]["coin"].update(steps="soon"), r"`generators\.coin\.steps` is 'soon'"),
    (lambda v: v["classifiers"]["judge"].pop("epochs"), r"missing parameter `classifiers\.judge\.epochs`"),
    (lambda v: v["methods"].update(magic={"needs": "x"}), r"`methods\.magic` has no code"),
    (lambda v: v.update(dataset="unheard_of"),
     r"params.yaml: `dataset` is 'unheard_of', which has no block under `datasets` in datasets.yaml; .*phantom"),
    (lambda v: v["generators"].update(magic={}),
     r"`generators\.magic` has no code: flipside/generators/magic\.py not found; known are: blobgan, coin"),
    (lambda v: v["datasets"]["phantom"].pop("layout"), r"datasets\.phantom"),
    (lambda v: v.pop("report"), r"missing parameter `report`"),
    (lambda v: v["filter"].update(window="wide"),
     r"`filter\.window` is 'wide': .*'auto', 'per_scan' or 'fingerprint' or .*tuple"),
    (lambda v: v["filter"].update(window=[3, 1]), r"`filter\.window` is \[3, 1\]: .*window must be \[low, high\]"),
    (lambda v: v["filter"].update(seed={"a": 1}), r"unknown parameter `filter\.seed`; known are: min_organ_px, window"),
    (lambda v: v["filter"].update(min_organ_px={"a": 1}), r"`filter\.min_organ_px` is a mapping: .*integer"),
    (lambda v: v.update(strong_supervision=["mass_patches"]), r"no `pretraining` of a classifier is data/patches"),
    (lambda v: v["classifiers"]["judge"].update(pretraining="data/patches"),
     r"`strong_supervision` is \[\], but `classifiers\.judge\.pretraining` is data/patches: .*set both"),
    (lambda v: v.update(foreign_maps={"rise": {"pattern": "{case}.nii.gz", "values": "any"}}),
     r"`foreign_maps\.rise` has the name of a method under `methods`"),
    (lambda v: v.update(foreign_maps={"mine": {"pattern": "maps.nii.gz", "values": "any"}}),
     r"`foreign_maps\.mine\.pattern` is 'maps\.nii\.gz': expected a name with \{case\}"),
    (lambda v: v.update(strong_supervision=["masks"]), r"`strong_supervision\[0\]` is 'masks'"),
])
def test_any_section_is_checked_before_any_work(tmp_path, edit, message):
    with pytest.raises(ParamsError, match=message):
        check_all(edited(tmp_path, edit))


NIFTI_KEYS = ("root, page, modality, anomalies, lesion_threshold_px, plane, context, layout, image, organ, lesion, "
              "ignored, patient$")


@pytest.mark.parametrize(("edit", "message"), [
    (lambda v: v["datasets"]["phantom"].update(imagge=1),
     r"unknown parameter `datasets\.phantom\.imagge`; known are: " + NIFTI_KEYS),
    (lambda v: v["datasets"]["phantom"].update(imagge=v["datasets"]["phantom"].pop("image")),
     r"unknown parameter `datasets\.phantom\.imagge`"),  # rather than: `image` is missing
    (lambda v: v["datasets"]["kits"]["organ"].update(value=[1]),
     r"unknown parameter `datasets\.kits\.organ\.value`; known are: files, values, several$"),
    (lambda v: v["datasets"]["curvas"]["organ"].update(colour=1),
     r"unknown parameter `datasets\.curvas\.organ\.colour`; known are: files, values, several, colours$"),
    (lambda v: v["datasets"]["kits"]["lesion"].update(values=[1, "two"]),
     r"`datasets\.kits\.lesion\.values\[1\]` is 'two'"),
    (lambda v: v["datasets"]["kits"].update(organ="all"),
     r"`datasets\.kits\.organ` is 'all': .*LabelFiles.* or .*nonzero"),
    (lambda v: v["datasets"]["kits"].pop("image"), r"missing parameter `datasets\.kits\.image`$"),
    (lambda v: v["datasets"]["kits"].pop("layout"), r"missing parameter `datasets\.kits\.layout`$"),
    (lambda v: v["datasets"]["kits"].update(layout="zip"),
     r"`datasets\.kits\.layout` is 'zip'; expected .*'nifti_cases'"),
    (lambda v: v["classifiers"]["classifier"]["augmentation"][2].update(shft=1),
     r"unknown parameter `classifiers\.classifier\.augmentation\[2\]\.shft`; known are: .*scale, rotate_degrees$"),
    (lambda v: v["classifiers"]["judge"]["augmentation"][0].update(name="mirror"),
     r"`classifiers\.\w+\.augmentation\[0\]\.name` is 'mirror'; expected one of .*horizontal_flip"),
])
def test_inside_a_choice_of_models_the_key_is_the_one_in_the_file(tmp_path, edit, message):
    with pytest.raises(ParamsError, match=message):
        check_all(edited(tmp_path, edit))


@pytest.mark.parametrize(("edit", "message"), [
    (lambda v: v["datasets"]["phantom"].update(imagge=1),
     r"unknown parameter `datasets\.phantom\.imagge`; known are: root, page"),
    (lambda v: v["datasets"]["phantom"].pop("image"), r"missing parameter `datasets\.phantom\.image`"),
    (lambda v: v["datasets"]["phantom"].update(modality="mri"), r"`datasets\.phantom\.modality` is 'mri'"),
    (lambda v: v["datasets"].pop("phantom"), r"missing parameter `datasets\.phantom`; found: synthetic_effect, "),
])
def test_the_message_on_a_data_set_names_its_file(tmp_path, edit, message):
    file = edited(tmp_path, edit)
    with pytest.raises(ParamsError, match=rf"^datasets\.yaml: {message}"):
        load_section("datasets.phantom", DatasetParams, file)
    if "phantom" in read_datasets(tmp_path / "datasets.yaml")["datasets"]:
        with pytest.raises(ParamsError, match=rf"^datasets\.yaml: {message}"):
            check_all(file)


def test_datasets_yaml_holds_nothing_else(tmp_path):
    (tmp_path / "datasets.yaml").write_text("datasets: {}\nseed: 1\n")
    with pytest.raises(ParamsError, match=r"datasets\.yaml: `seed` belongs in params.yaml: move it there"):
        read_datasets(tmp_path / "datasets.yaml")


@pytest.mark.parametrize("stage", ["simulate_scans", "simulate_effects", "extract_slices"])
def test_first_stages_refuse_a_typo_anywhere_in_one_line(tmp_path, monkeypatch, capsys, stage):
    edited(tmp_path, lambda v: v["methods"]["coin"].update(typo=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [stage])
    with pytest.raises(SystemExit) as left:
        stage_main(importlib.import_module(f"stages.{stage}").main)
    error = capsys.readouterr().err
    assert left.value.code == 1
    assert "unknown parameter `methods.coin.typo`" in error
    assert "Traceback" not in error
    assert not (tmp_path / "data").exists()

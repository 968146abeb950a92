"""The loader of params.yaml: what is wrong is refused with the key's full name, before any work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flipside.cli.profile import apply_profile, read_profile
from flipside.core.params import Params, ParamsError, check_all, load_section, load_value, read_params
from flipside.scans.layouts import DatasetParams

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


class Section(Params):
    rate: float
    steps: int
    names: list[str]


def written(tmp_path, text):
    file = tmp_path / "params.yaml"
    file.write_text(text)
    return file


def edited(tmp_path, edit):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    edit(values)
    return written(tmp_path, yaml.safe_dump(values, sort_keys=False))


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
    ("metods: {}", r"unknown parameter `metods`; known are: .*methods"),
    ("[1, 2]", r"expected a mapping"),
    ("a: [", r"not valid YAML"),
])
def test_wrong_parameters_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(ParamsError, match=message):
        load_section("report", Section, written(tmp_path, text))


def test_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(ParamsError, match=str(tmp_path)):
        read_params(tmp_path / "params.yaml")


def test_scalars_are_typed(tmp_path):
    file = written(tmp_path, "seed: many\n")
    with pytest.raises(ParamsError, match="`seed` is 'many'"):
        load_value("seed", int, file)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda v: v["methods"]["rise"].update(maks=3), r"unknown parameter `methods\.rise\.maks`"),
    (lambda v: v["generators"]["coin"].update(steps="soon"), r"`generators\.coin\.steps` is 'soon'"),
    (lambda v: v["classifiers"]["judge"].pop("epochs"), r"missing parameter `classifiers\.judge\.epochs`"),
    (lambda v: v["methods"].update(magic={"needs": "x"}), r"`methods\.magic` has no code"),
    (lambda v: v["generators"].update(magic={}),
     r"`generators\.magic` has no code: flipside/generators/magic\.py not found; known are: blobgan, coin"),
    (lambda v: v.update(dataset="unheard_of"), r"`dataset` is 'unheard_of'.*phantom"),
    (lambda v: v["datasets"]["phantom"].pop("layout"), r"datasets\.phantom"),
    (lambda v: v.pop("report"), r"missing parameter `report`"),
    (lambda v: v["filter"].update(window="wide"), r"`filter\.window` is 'wide': .*'fingerprint' or .*tuple"),
    (lambda v: v["filter"].update(window=[3, 1]), r"`filter`: window must be \[low, high\]"),
    (lambda v: v["filter"].update(seed={"a": 1}), r"unknown parameter `filter\.seed`; known are: min_organ_px, window"),
    (lambda v: v["filter"].update(min_organ_px={"a": 1}), r"`filter\.min_organ_px` is a mapping: .*integer"),
    (lambda v: v.update(strong_supervision=["mass_patches"]), r"no `pretraining` of a classifier is data/patches"),
    (lambda v: v["classifiers"]["judge"].update(pretraining="data/patches"),
     r"`strong_supervision` is \[\], but `classifiers\.judge\.pretraining` is data/patches: .*set both"),
    (lambda v: v.update(strong_supervision=["masks"]), r"`strong_supervision\[0\]` is 'masks'"),
])
def test_any_section_is_checked_before_any_work(tmp_path, edit, message):
    with pytest.raises(ParamsError, match=message):
        check_all(edited(tmp_path, edit))


NIFTI_KEYS = "root, page, modality, anomalies, lesion_threshold_px, layout, image, organ, lesion, ignored, patient$"


@pytest.mark.parametrize(("edit", "message"), [
    (lambda v: v["datasets"]["phantom"].update(imagge=1),
     r"unknown parameter `datasets\.phantom\.imagge`; known are: " + NIFTI_KEYS),
    (lambda v: v["datasets"]["phantom"].update(imagge=v["datasets"]["phantom"].pop("image")),
     r"unknown parameter `datasets\.phantom\.imagge`"),  # rather than: `image` is missing
    (lambda v: v["datasets"]["kits"]["organ"].update(value=[1]),
     r"unknown parameter `datasets\.kits\.organ\.value`; known are: files, values$"),
    (lambda v: v["datasets"]["curvas"]["organ"].update(colour=1),
     r"unknown parameter `datasets\.curvas\.organ\.colour`; known are: files, values, colours$"),
    (lambda v: v["datasets"]["kits"]["lesion"].update(values=[1, "two"]),
     r"`datasets\.kits\.lesion\.values\[1\]` is 'two'"),
    (lambda v: v["datasets"]["kits"].update(organ="all"),
     r"`datasets\.kits\.organ` is 'all': .*VolumeMask.* or .*nonzero"),
    (lambda v: v["datasets"]["kits"].pop("ignored"), r"missing parameter `datasets\.kits\.ignored`$"),
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


def test_the_section_of_one_data_set_is_refused_like_all_of_them(tmp_path):
    file = edited(tmp_path, lambda v: v["datasets"]["phantom"].update(imagge=1))
    with pytest.raises(ParamsError, match=r"unknown parameter `datasets\.phantom\.imagge`; known are: root, page"):
        load_section("datasets.phantom", DatasetParams, file)


@pytest.mark.parametrize("stage", ["simulate_scans", "simulate_effects", "extract_slices"])
def test_first_stages_refuse_a_typo_anywhere_in_one_line(tmp_path, stage):
    edited(tmp_path, lambda v: v["methods"]["coin"].update(typo=1))
    result = subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=tmp_path, capture_output=True,
                            text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, check=False)
    assert result.returncode == 1
    assert "unknown parameter `methods.coin.typo`" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


def test_all_profiles_set_the_same_keys():
    keys = {name: set(read_profile_from_root(name)) for name in PROFILES}
    assert len(PROFILES) >= 4
    for name in PROFILES:
        assert keys[name] == keys["cpu"], f"{name} differs from cpu by {keys[name] ^ keys['cpu']}"


def read_profile_from_root(name):
    return yaml.safe_load((ROOT / "profiles" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", PROFILES)
def test_profile_there_and_back_leaves_nothing_behind(tmp_path, monkeypatch, name):
    file = written(tmp_path, (ROOT / "params.yaml").read_text())
    monkeypatch.chdir(ROOT)
    apply_profile("cpu", file)
    before = file.read_text()
    apply_profile(name, file)
    check_all(file)
    values = yaml.safe_load(file.read_text())
    assert values["profile"] == name
    assert "#" in file.read_text()  # comments stay
    apply_profile("cpu", file)
    assert re.sub(" +#", " #", file.read_text()) == re.sub(" +#", " #", before)  # comments may move sideways


def test_committed_parameters_are_the_cpu_profile(tmp_path, monkeypatch):
    file = written(tmp_path, (ROOT / "params.yaml").read_text())
    monkeypatch.chdir(ROOT)
    apply_profile("cpu", file)
    assert yaml.safe_load(file.read_text()) == yaml.safe_load((ROOT / "params.yaml").read_text())


def test_unknown_profile_names_those_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParamsError, match="cpu"):
        read_profile("huge")

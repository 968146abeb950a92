"""Profiles: what one says, what it takes from another, and that switching leaves nothing behind."""

import copy
import itertools
import re
import shutil
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from flipside.cli import profile as tool
from flipside.cli.profile import apply_profile, read_profile
from flipside.core.params import ParamsError, check_all, value_at
from flipside.published.ablations import is_same

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A copy of the committed parameters."""
    monkeypatch.chdir(ROOT)
    for name in ("params.yaml", "datasets.yaml"):
        shutil.copy(name, tmp_path)
    return tmp_path / "params.yaml"


def own(name):
    """What the file of a profile itself says."""
    return yaml.safe_load((ROOT / f"profiles/{name}.yaml").read_text())


def test_together_they_have_at_most_800_lines():
    assert sum(len((ROOT / f"profiles/{name}.yaml").read_text().splitlines()) for name in PROFILES) <= 800


def test_committed_parameters_are_the_profile_that_they_name(params):
    committed = yaml.safe_load(params.read_text())
    apply_profile(committed["profile"], params)
    assert yaml.safe_load(params.read_text()) == committed


@pytest.mark.parametrize("name", PROFILES)
def test_no_profile_repeats_a_value_of_the_one_that_it_extends(params, name):
    values = own(name)
    if "extends" in values:
        base = read_profile(values.pop("extends"))
        assert [key for key, value in values.items() if repr(value) == repr(base[key])] == []


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_written_whole_and_the_comments_stay(params, name):
    apply_profile(name, params)
    check_all(params)
    values = yaml.safe_load(params.read_text())
    for key, value in (read_profile(name) | own(name) | {"profile": name}).items():
        assert key == "extends" or is_same(value_at(values, key), value)  # 0.00005 is written as 5e-05
    assert params.read_text().count("#") == (ROOT / "params.yaml").read_text().count("#")


def test_switching_between_any_two_leaves_nothing_behind(params, monkeypatch):
    monkeypatch.setattr(tool, "check_all", lambda path: None)  # each profile is checked above
    parsed, load = {}, YAML.load

    def load_once(editor, text):
        """Half of the time would go into parsing the same texts for each pair."""
        if text not in parsed:
            parsed[text] = load(editor, text)
        return copy.deepcopy(parsed[text])

    monkeypatch.setattr(YAML, "load", load_once)
    committed, alone = params.read_text(), {}
    for name in PROFILES:
        params.write_text(committed)
        apply_profile(name, params)
        alone[name] = params.read_text()
    assert len(alone) >= 4
    for first, second in itertools.product(PROFILES, repeat=2):
        params.write_text(alone[first])
        apply_profile(second, params)
        assert comments_in_place(params.read_text()) == comments_in_place(alone[second]), f"{first}, then {second}"


def comments_in_place(text):
    """Without the columns of comments, which longer values move."""
    return re.sub(" +#", " #", text)


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A function that writes profiles into a folder of their own."""
    monkeypatch.chdir(tmp_path)
    Path("profiles").mkdir()

    def write(**profiles):
        for name, text in profiles.items():
            Path(f"profiles/{name}.yaml").write_text(text)

    return write


def test_a_profile_has_the_values_of_all_that_it_extends(toys):
    toys(base="a.b: 1\nc: 2\nd: [3]\n", wide="extends: base\nc: 5\n", wider="extends: wide\nd: [6]\n")
    assert read_profile("wider") == {"a.b": 1, "c": 5, "d": [6], "profile": "wider"}
    assert read_profile("wide") == {"a.b": 1, "c": 5, "d": [3], "profile": "wide"}


def test_what_does_not_resolve_is_refused_by_name(toys):
    toys(base="a: 1\n", first="extends: second\n", second="extends: first\n", lost="extends: nowhere\n",
         more="extends: base\nb: 1\n", words="some words\n")
    with pytest.raises(ParamsError, match="in a circle: first -> second -> first"):
        read_profile("first")
    with pytest.raises(ParamsError, match="no profile 'nowhere': .*, which profiles/lost.yaml extends; .* base, first"):
        read_profile("lost")
    with pytest.raises(ParamsError, match="profiles/more.yaml: `b` is not set by base.*set it in profiles/base.yaml"):
        read_profile("more")
    with pytest.raises(ParamsError, match="profiles/words.yaml: expected a mapping .* found str"):
        read_profile("words")
    with pytest.raises(ParamsError, match="no profile 'huge': .*there are: base, first, lost"):
        read_profile("huge")


@pytest.mark.parametrize("key", ["generators.coin.stps", "genrators.coin.steps", "seed.x"])
def test_a_key_that_is_no_parameter_leaves_the_file_alone(toys, params, monkeypatch, tmp_path, key):
    monkeypatch.chdir(tmp_path)
    toys(wrong=f"seed: 3\n{key}: 7\n")
    before = params.read_text()
    with pytest.raises(ParamsError, match=f"profile wrong: `{key}` is no parameter of .*params.yaml.*a classifier of "
                                          "your own: keep a copy"):
        apply_profile("wrong", params)
    assert params.read_text() == before


def test_values_that_no_stage_could_act_on_leave_the_file_alone(toys, params, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    toys(wrong="generators.coin.steps: soon\n")
    before = params.read_text()
    with pytest.raises(ParamsError, match="`generators.coin.steps` is 'soon'"):
        apply_profile("wrong", params)
    assert params.read_text() == before

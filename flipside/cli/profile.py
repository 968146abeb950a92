"""Write a profile's values into params.yaml.

A profile is a file profiles/<name>.yaml of dotted keys and values. Its line `extends: <other>` takes over another
profile's values, so a file says only what differs. The profile that extends none (cpu) has every key that any profile
changes, and a profile that extends one sets no other: so each profile sets the same keys, and switching from one to
another leaves nothing behind. Comments and all other values of params.yaml stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flipside.core.files import atomic_file
from flipside.core.params import PARAMS_FILE, ParamsError, check_all

PROFILES = Path("profiles")


def profile(name: Annotated[str, typer.Argument(help="A file in profiles/, without its ending.")]) -> None:
    """Write a profile's values into params.yaml.

    params.yaml keeps its comments and all its other values.
    """
    apply_profile(name)
    print(f"params.yaml now has the values of profiles/{name}.yaml")


def read_profile(name: str) -> dict[str, Any]:
    """Dotted keys and values of a profile, those of the profiles that it extends included.

    Raises ParamsError for an unknown profile, for profiles that extend each other in a circle, and for a key that the
    profile extended doesn't have.
    """
    return _resolved(name, ()) | {"profile": name}


def _resolved(name: str, extending: tuple[str, ...]) -> dict[str, Any]:
    """The values of a profile that is extended by the profiles `extending`."""
    from ruamel.yaml import YAML

    file = PROFILES / f"{name}.yaml"
    chain = (*extending, name)
    if name in extending:
        raise ParamsError(f"profiles extend each other in a circle: {' -> '.join(chain)}. Change `extends` in {file}")
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
        extended = f", which {PROFILES / extending[-1]}.yaml extends" if extending else ""
        raise ParamsError(f"no profile {name!r}: {file} not found{extended}; there are: {known}")
    values = YAML(typ="safe").load(file.read_text())
    if not isinstance(values, dict):
        raise ParamsError(f"{file}: expected a mapping of dotted keys, found {type(values).__name__}")
    base = values.pop("extends", None)
    if base is None:
        return values
    inherited = _resolved(base, chain)
    if unknown := sorted(values.keys() - inherited.keys()):
        raise ParamsError(f"{file}: `{unknown[0]}` is not set by {base}, which this profile extends: switching back to "
                          f"{base} would leave it changed. Correct the key, or set it in {PROFILES / base}.yaml too")
    return inherited | values


def apply_profile(name: str, path: Path = PARAMS_FILE) -> None:
    """Write a profile's values into params.yaml.

    Raises ParamsError for a key that params.yaml doesn't have and for values that don't validate; the file then stays
    as it is.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def in_style(value: Any) -> Any:
        if isinstance(value, dict):
            value = CommentedMap(value)
            value.fa.set_flow_style()
        elif isinstance(value, list):
            of_mappings = any(isinstance(each, dict) for each in value)  # such as augmentations, one in each line
            value = CommentedSeq(map(in_style, value))
            if not of_mappings:
                value.fa.set_flow_style()
        return value

    editor = YAML()
    editor.preserve_quotes = True
    editor.representer.add_representer(type(None), lambda representer, _: representer.represent_scalar(
        "tag:yaml.org,2002:null", "null"))
    editor.width = 120
    editor.indent(mapping=2, sequence=4, offset=2)
    values, params = read_profile(name), editor.load(path.read_text())
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = params
        for part in (*parents, leaf):
            if not isinstance(node, dict) or part not in node:
                raise ParamsError(f"profile {name}: `{key}` is no parameter of {path}. Where it went with a method "
                                  "that was taken out, or for a classifier of your own: keep a copy of the file, `git "
                                  "checkout params.yaml`, write the profile, put your changes in again")
            holder, node = node, node[part]
        holder[leaf] = in_style(value)
    with atomic_file(path) as temporary:
        editor.dump(params, temporary)
        check_all(temporary)

"""Switch params.yaml to a profile: `python -m flipside.cli.profile cpu` (or `make profile P=cpu`).

A profile is a file `profiles/<name>.yaml` of dotted keys and values. Every profile sets the same keys, so switching
there and back leaves nothing behind; comments and all other values of params.yaml stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from flipside.core.files import atomic_file
from flipside.core.params import PARAMS_FILE, ParamsError, check_all, stage_main

PROFILES = Path("profiles")


def read_profile(name: str) -> dict[str, Any]:
    """Dotted keys and values of one profile."""
    file = PROFILES / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in PROFILES.glob("*.yaml")))
        raise ParamsError(f"no profile {name!r}: {file} not found; there are: {known}")
    return dict(YAML(typ="safe").load(file.read_text()))


def apply_profile(name: str, path: Path = PARAMS_FILE) -> None:
    """Write a profile's values into params.yaml; unknown keys and a result that doesn't validate are refused."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), lambda representer, _: representer.represent_scalar(
        "tag:yaml.org,2002:null", "null"))
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    params = yaml.load(path.read_text())
    for key, value in read_profile(name).items():
        *parents, leaf = key.split(".")
        node: CommentedMap = params
        for part in parents:
            if part not in node:
                raise ParamsError(f"profiles/{name}.yaml: `{key}` is no parameter of {path}")
            node = node[part]
        if leaf not in node:
            raise ParamsError(f"profiles/{name}.yaml: `{key}` is no parameter of {path}")
        node[leaf] = _in_style(value)
    with atomic_file(path) as temporary:
        yaml.dump(params, temporary)
        check_all(temporary)


def _in_style(value: Any) -> Any:
    if isinstance(value, list):
        sequence = CommentedSeq(value)
        sequence.fa.set_flow_style()
        return sequence
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile")
    name = parser.parse_args().profile
    apply_profile(name)
    print(f"params.yaml now has the values of profiles/{name}.yaml")


if __name__ == "__main__":
    stage_main(main)

"""DVC with its YAML files read and written by libyaml: `python tests/quick_dvc.py <arguments of dvc>`, or `hurried()`.

After each stage DVC rewrites the whole of dvc.lock, in Python and so that comments stay, and for each stage's status it
reads all of params.yaml: most of its time in a project of as many stages as this one.
"""

import contextlib
import copy
import functools
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any
from unittest import mock

from dvc.utils import serialize
from dvc.utils.serialize import _yaml
from ruamel.yaml import YAML


def editor() -> YAML:
    """Files without comments, in the order of their keys."""
    quick = YAML(typ="safe")
    quick.default_flow_style = False
    quick.sort_base_mapping_type_on_output = False
    quick.representer.add_representer(OrderedDict, type(quick.representer).represent_dict)
    return quick


@functools.lru_cache(maxsize=8)
def parsed(text: str, path: Any) -> Any:
    return _yaml.parse_yaml(text, path)


def load(path: Any, fs: Any = None, **options: Any) -> Any:
    with (fs.open if fs else open)(path, encoding="utf-8", **options) as file:
        return copy.deepcopy(parsed(file.read(), path))


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """DVC in this process."""
    with mock.patch.multiple(_yaml, parse_yaml_for_update=_yaml.parse_yaml, _get_yaml=editor), \
            mock.patch.dict(serialize.LOADERS, {".yaml": load}):
        yield


if __name__ == "__main__":
    from dvc.cli import main

    with hurried():
        sys.exit(main())

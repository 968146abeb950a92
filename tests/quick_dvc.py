"""DVC's command line, but dvc.lock is read and written by libyaml: python tests/quick_dvc.py <arguments of dvc>.

After each stage DVC rewrites the whole file, in Python and so that comments stay, which takes longer than most stages'
own work in tests.
"""

import sys
from collections import OrderedDict

from dvc.cli import main
from dvc.utils.serialize import _yaml
from ruamel.yaml import YAML


def editor() -> YAML:
    """Files without comments, in the order of their keys."""
    quick = YAML(typ="safe")
    quick.default_flow_style = False
    quick.sort_base_mapping_type_on_output = False
    quick.representer.add_representer(OrderedDict, type(quick.representer).represent_dict)
    return quick


_yaml.parse_yaml_for_update = _yaml.parse_yaml
_yaml._get_yaml = editor
sys.exit(main())

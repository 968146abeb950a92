"""Files of parameters for tests: all sections in one mapping, params.yaml and datasets.yaml on disk."""

from pathlib import Path
from typing import Any

import yaml

from flipside.core.params import DATASETS_FILE, PARAMS_FILE, file_of

ROOT = Path(__file__).parents[1]


def project_parameters() -> dict[str, Any]:
    """All sections of the project's own parameters."""
    return {section: content for file in (PARAMS_FILE, DATASETS_FILE)
            for section, content in yaml.safe_load((ROOT / file).read_text()).items()}


def write_parameters(folder: Path, sections: dict[str, Any]) -> None:
    """Write each section into its file; a file of which there is no section isn't written."""
    for file in (PARAMS_FILE, DATASETS_FILE):
        if own := {section: content for section, content in sections.items() if file_of(section) == file}:
            (folder / file).write_text(yaml.safe_dump(own, sort_keys=False))

"""One typed loader for params.yaml and datasets.yaml: every stage reads its sections through here.

Each section's pydantic model is in the file that uses it; `SECTIONS` says which. The first stages of the pipeline call
`check_all`, so a wrong key anywhere is refused before any work; later stages check what they read.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import yaml

from flipside.core import paths
from flipside.core.files import naming_a_full_disk
from flipside.core.image_size import ImageSize
from flipside.core.params_checks import contradictions
from flipside.core.params_errors import explain
from flipside.core.plugins import PluginError

PARAMS_FILE = Path("params.yaml")
DATASETS_FILE = Path("datasets.yaml")  # beside params.yaml
IN_DATASETS_FILE = ("datasets",)  # the sections that are there; all others are in params.yaml

Fraction = Annotated[float, pydantic.Field(gt=0, lt=1)]

# Top-level key -> "module:Model", or a type for single values.
# "module:find:{key}" means: a mapping of names to blocks; `find(name)` gives a class whose `Params` models its block.
SECTIONS: dict[str, Any] = {
    "profile": str,
    "dataset": str,
    "seed": int,
    "image_size": ImageSize,
    "lesion_fraction": Fraction,
    "runtime": "flipside.core.runtime:RuntimeParams",
    "simulated": "flipside.cohort.simulated:SimulatedParams",
    "phantom": "flipside.cohort.phantom.phantom:PhantomParams",
    "synthetic_effect": "flipside.cohort.effects:EffectParams",
    "datasets": "flipside.scans.layouts:DatasetsParams",
    "extract": "flipside.cohort.extraction:ExtractParams",
    "filter": "flipside.cohort.selection:FilterParams",
    "anomalies": "flipside.cohort.anomalies:AnomalyParams",
    "offline_augmentation": "flipside.cohort.offline_augmentation:OfflineAugmentationParams",
    "strong_supervision": "flipside.cohort.patches:StrongSupervision",
    "mass_patches": "flipside.cohort.patches:PatchParams",
    "classifiers": "flipside.classifiers.blocks:ClassifiersParams",
    "generators": "flipside.generators.base.loading:find_generator:{key}",
    "pseudo_masks": "flipside.segmenters.labels:PseudoMaskParams",
    "segmenter": "flipside.segmenters.training:SegmenterParams",
    "encoders": "flipside.generators.encoders.training:EncodersParams",
    "inversions": "flipside.methods.latent.inversion:InversionsParams",
    "attributes": "flipside.methods.latent.attributes:AttributesParams",
    "explain": "flipside.methods.base.parameters:ExplainParams",
    "methods": "flipside.methods.base.method:find_method:{key}",
    "foreign_maps": "flipside.methods.foreign.reading:ForeignMapsParams",
    "realism": "flipside.methods.checks.realism:RealismParams",
    "sanity": "flipside.methods.base.randomisation:SanityParams",
    "probe": "flipside.artifacts.probes:ProbeParams",
    "masks": "flipside.masks.extraction.thresholds:MaskParams",
    "segment_scans": "flipside.masks.placing:SegmentScansParams",
    "evaluate": "flipside.metrics.evaluation:EvaluateParams",
    "report": "flipside.report.params:ReportParams",
}

Model = TypeVar("Model", bound=pydantic.BaseModel)


class Params(pydantic.BaseModel):
    """Base of every section: unknown keys are refused, values don't change after loading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ParamsError(ValueError):
    """params.yaml or datasets.yaml says something that no stage can act on. The message names file and key."""


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """params.yaml as a plain mapping; its top-level keys must be among `SECTIONS`."""
    return _read(Path(path), PARAMS_FILE)


def read_datasets(path: Path = DATASETS_FILE) -> dict[str, Any]:
    """datasets.yaml as a plain mapping: {"datasets": {name: block}}."""
    return _read(Path(path), DATASETS_FILE)


def _read(path: Path, kind: Path) -> dict[str, Any]:
    """A file of parameters; `kind` is the one of the two files that it is, or is a copy of."""
    if not path.is_file():
        raise ParamsError(f"{path.resolve()} not found: run this in the folder that holds {PARAMS_FILE} and "
                          f"{DATASETS_FILE}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    known = [section for section in SECTIONS if file_of(section) == kind]
    for unknown in sorted(set(values) - set(known)):
        if unknown in SECTIONS:
            raise ParamsError(f"{path}: `{unknown}` belongs in {file_of(unknown)}: move it there")
        raise ParamsError(f"{path}: unknown parameter `{unknown}`; known are: {', '.join(known)}")
    return values


def _beside(path: Path) -> Path:
    """datasets.yaml in the folder of a params.yaml."""
    return Path(path).with_name(DATASETS_FILE.name)


def file_of(key: str) -> Path:
    """The file that a dotted key is in."""
    return DATASETS_FILE if key.split(".")[0] in IN_DATASETS_FILE else PARAMS_FILE


def value_at(values: dict[str, Any], key: str) -> Any:
    """The value under a dotted key; the error names the first part that is missing."""
    node: Any = values
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            known = ", ".join(map(str, node)) if isinstance(node, dict) else "nothing below it"
            raise ParamsError(f"{file_of(key)}: missing parameter `{'.'.join(parts[: depth + 1])}`; found: {known}")
        node = node[part]
    return node


def load_section(key: str, model: type[Model], path: Path = PARAMS_FILE) -> Model:
    """The section under a dotted key, as its typed model. Text such as `1e-06` is read as the number it means.

    `path`: params.yaml; a section of datasets.yaml is read from the file of this name beside it.
    """
    values = read_params(path) if file_of(key) == PARAMS_FILE else read_datasets(_beside(path))
    return _validated(key, value_at(values, key), model)


def load_value(key: str, kind: Any, path: Path = PARAMS_FILE) -> Any:
    """One top-level value of the given type, e.g. int."""
    return _scalar(key, value_at(read_params(path), key), kind)


def check_all(path: Path = PARAMS_FILE) -> None:
    """Refuse params.yaml and the datasets.yaml beside it where any section has an unknown, missing or ill-typed key.

    The models' modules are imported by name: checking can refuse a run but never changes an output, so it makes no
    stage depend on other packages' code.
    """
    values = read_params(path) | read_datasets(_beside(path))
    for section, spec in SECTIONS.items():
        content = value_at(values, section)
        if not isinstance(spec, str):
            _scalar(section, content, spec)
        elif "{key}" in spec:
            if not isinstance(content, dict):
                raise ParamsError(f"{file_of(section)}: `{section}` must be a mapping of names to blocks, found "
                                  f"{content!r}")
            for name, block in content.items():
                _validated(f"{section}.{name}", block, _import_model(spec.format(key=name), f"{section}.{name}"))
        else:
            _validated(section, content, _import_model(spec, section))
    for contradiction in contradictions(values):
        raise ParamsError(f"{PARAMS_FILE}: {contradiction}")


def _import_model(spec: str, key: str) -> type[pydantic.BaseModel]:
    module_name, attribute, *name = spec.split(":")
    found = getattr(importlib.import_module(module_name), attribute)
    try:
        return found(*name).Params if name else found
    except PluginError as error:
        raise ParamsError(f"{file_of(key)}: `{key}` has no code: {error}") from None


def _scalar(key: str, value: Any, kind: Any) -> Any:
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        raise ParamsError(f"{file_of(key)}: `{key}` is {value!r}: {error.errors()[0]['msg']}") from None


def _validated(key: str, content: Any, model: type[Model]) -> Model:
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        raise ParamsError(f"{file_of(key)}: {explain(key, content, model, error)}") from None


def announce(stage: str, **sections: Any) -> None:
    """Print a stage's resolved parameters and save them in `.scratch/parameters/<stage>.yaml`, before any work."""
    resolved = {
        name: section.model_dump(mode="json") if isinstance(section, pydantic.BaseModel) else section
        for name, section in sections.items()
    }
    text = yaml.safe_dump(resolved, sort_keys=False)
    print(f"{stage}: parameters\n" + "".join(f"  {line}\n" for line in text.splitlines()), end="", flush=True)
    file = Path(paths.SCRATCH) / "parameters" / f"{stage.replace('/', '_')}.yaml"
    with naming_a_full_disk(file):  # tasks of an array job write the same text at once
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def stage_main(main: Callable[[], None]) -> None:
    """Run a stage or a command; an error that the user can correct is one line and exit status 1, no traceback."""
    try:
        main()
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if os.environ.get("FLIPSIDE_TRACEBACK"):
            raise
        print(f"error: {error}\n(set FLIPSIDE_TRACEBACK=1 for the traceback)", file=sys.stderr)
        sys.exit(1)

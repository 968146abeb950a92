"""One typed loader for params.yaml: every stage reads its sections through here.

Each section's pydantic model stands in the room that uses it; `SECTIONS` says which. The first stages of the
pipeline call `check_all`, so a wrong key anywhere is refused before any work; later stages check what they read.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from flipside.core.files import atomic_file
from flipside.core.plugins import PluginError

PARAMS_FILE = Path("params.yaml")

# Top-level key of params.yaml -> "module:Model", or a plain type for single values.
# "module:find:{key}" means: a mapping of names to blocks; `find(name)` gives a class whose `Params` models its block.
SECTIONS: dict[str, Any] = {
    "profile": str,
    "dataset": str,
    "seed": int,
    "image_size": int,
    "runtime": "flipside.core.runtime:RuntimeParams",
    "phantom": "flipside.cohort.phantom.phantom:PhantomParams",
    "synthetic_effect": "flipside.cohort.effects:EffectParams",
    "datasets": "flipside.scans.layouts:DatasetsParams",
    "extract": "flipside.cohort.extraction:ExtractParams",
    "filter": "flipside.cohort.selection:FilterParams",
    "anomalies": "flipside.cohort.anomalies:AnomalyParams",
    "offline_augmentation": "flipside.cohort.offline_augmentation:OfflineAugmentationParams",
    "strong_supervision": "flipside.cohort.patches:StrongSupervision",
    "mass_patches": "flipside.cohort.patches:PatchParams",
    "classifiers": "flipside.classifiers.training:ClassifiersParams",
    "generators": "flipside.generators.training.loading:find_generator:{key}",
    "encoders": "flipside.generators.training.encoder:EncodersParams",
    "inversions": "flipside.methods.latent.inversion:InversionsParams",
    "attributes": "flipside.methods.latent.attributes:AttributesParams",
    "explain": "flipside.methods.base.parameters:ExplainParams",
    "methods": "flipside.methods.base.method:find_method:{key}",
    "realism": "flipside.methods.checks.realism:RealismParams",
    "sanity": "flipside.methods.checks.randomisation:SanityParams",
    "probe": "flipside.artifacts.probes:ProbeParams",
    "masks": "flipside.masks.thresholds:MaskParams",
    "segment_scans": "flipside.masks.placing:SegmentScansParams",
    "evaluate": "flipside.metrics.summary:EvaluateParams",
    "report": "flipside.report.figures:ReportParams",
}

Model = TypeVar("Model", bound=pydantic.BaseModel)


class Params(pydantic.BaseModel):
    """Base of every section: unknown keys are refused, values don't change after loading."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ParamsError(ValueError):
    """params.yaml says something that no stage can act on. The message names the key in full."""


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """params.yaml as a plain mapping, its top-level keys checked against `SECTIONS`."""
    path = Path(path)
    if not path.is_file():
        raise ParamsError(f"{path.resolve()} not found: run stages from the folder that holds params.yaml")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    unknown = sorted(set(values) - set(SECTIONS))
    if unknown:
        raise ParamsError(f"{path}: unknown parameter `{unknown[0]}`; known are: {', '.join(SECTIONS)}")
    return values


def value_at(values: dict[str, Any], key: str) -> Any:
    """The value under a dotted key; the error names the first part that is missing."""
    node: Any = values
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            known = ", ".join(map(str, node)) if isinstance(node, dict) else "nothing below it"
            raise ParamsError(f"params.yaml: missing parameter `{'.'.join(parts[: depth + 1])}`; found: {known}")
        node = node[part]
    return node


def load_section(key: str, model: type[Model], path: Path = PARAMS_FILE) -> Model:
    """The section under a dotted key, as its typed model. Text such as `1e-06` is read as the number it means."""
    return _validated(key, value_at(read_params(path), key), model)


def load_value(key: str, kind: type, path: Path = PARAMS_FILE) -> Any:
    """One top-level scalar of the given type."""
    return _scalar(key, value_at(read_params(path), key), kind)


def check_all(path: Path = PARAMS_FILE) -> None:
    """Refuse params.yaml as a whole where any section has an unknown, missing or ill-typed key.

    The models' modules are imported by name: checking can refuse a run but never changes an output,
    so it makes no stage depend on the other rooms' code.
    """
    values = read_params(path)
    for section, spec in SECTIONS.items():
        content = value_at(values, section)
        if isinstance(spec, type):
            _scalar(section, content, spec)
        elif "{key}" in spec:
            if not isinstance(content, dict):
                raise ParamsError(f"params.yaml: `{section}` must be a mapping of names to blocks, found {content!r}")
            for name, block in content.items():
                _validated(f"{section}.{name}", block, _import_model(spec.format(key=name), f"{section}.{name}"))
        else:
            _validated(section, content, _import_model(spec, section))
    if values["dataset"] not in values["datasets"]:
        raise ParamsError(
            f"params.yaml: `dataset` is {values['dataset']!r}, which has no block under `datasets`; "
            f"there are: {', '.join(values['datasets'])}"
        )
    _check_supervision(values)


def _check_supervision(values: dict[str, Any]) -> None:
    """A classifier that is shown lesion masks must be asked for in two places."""
    shown = [f"classifiers.{role}.pretraining" for role, block in values["classifiers"].items()
             if block["pretraining"] == "data/patches"]
    if bool(shown) != bool(values["strong_supervision"]):
        found = f"`{shown[0]}` is data/patches" if shown else "no `pretraining` of a classifier is data/patches"
        raise ParamsError(
            f"params.yaml: `strong_supervision` is {values['strong_supervision']!r}, but {found}: for a classifier "
            "that is pre-trained with lesion masks set both (strong_supervision: [mass_patches]), else neither ([] "
            "and data/slices)"
        )


def _import_model(spec: str, key: str) -> type[pydantic.BaseModel]:
    module_name, attribute, *name = spec.split(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        return found(*name).Params if name else found
    except PluginError as error:
        raise ParamsError(f"params.yaml: `{key}` has no code: {error}") from None
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise ParamsError(f"params.yaml: `{key}` has no code: {module_name.replace('.', '/')}.py not found") from None


def _scalar(key: str, value: Any, kind: type) -> Any:
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        raise ParamsError(f"params.yaml: `{key}` is {value!r}: {error.errors()[0]['msg']}") from None


def _validated(key: str, content: Any, model: type[Model]) -> Model:
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        # A misspelt key also misses the right one: the unknown key says more.
        errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise ParamsError(f"params.yaml: {_reason(key, content, model, errors)}") from None


def _reason(key: str, content: Any, model: type[pydantic.BaseModel], errors: list) -> str:
    """One sentence on the first of pydantic's errors; members of a union that refuse the same value are joined."""
    first = errors[0]
    where, kinds = _place(key, content, model, first)
    match first["type"]:
        case "extra_forbidden":
            return f"unknown parameter `{where}`; known are: {', '.join(kinds[0].model_fields)}"
        case "missing":
            return f"missing parameter `{where}`"
        case "union_tag_not_found":
            return f"missing parameter `{where}.{first['ctx']['discriminator'].strip(chr(39))}`"
        case "union_tag_invalid":
            chooser = first["ctx"]["discriminator"].strip("'")
            return f"`{where}.{chooser}` is {first['ctx']['tag']!r}; expected one of {first['ctx']['expected_tags']}"
        case "value_error" if isinstance(first["input"], dict):  # two keys that don't go together
            return f"`{where}`: {first['msg'].removeprefix('Value error, ')}"
    reasons = dict.fromkeys(one["msg"].removeprefix("Value error, ") for one in errors
                            if _place(key, content, model, one)[0] == where)
    found = "a mapping" if isinstance(first["input"], dict) else repr(first["input"])
    return f"`{where}` is {found}: {' or '.join(reasons)}"


def _place(key: str, content: Any, model: type[pydantic.BaseModel], error: Any) -> tuple[str, list[Any]]:
    """Full key of a pydantic error, and the models of the mapping in which its last part stands.

    In a union pydantic's location also names the member that was tried. Such a part is no key of the content; it is
    left out of the key and tells which of the models is meant.
    """
    kinds, holders, location = _members(model), _members(model), error["loc"]
    for depth, part in enumerate(location):
        is_key = isinstance(content, dict) and part in content or isinstance(content, list) and isinstance(part, int)
        if is_key or error["type"] == "missing" and depth == len(location) - 1:
            key += f"[{part}]" if isinstance(part, int) else f".{part}"
            holders, kinds = kinds, [below for kind in kinds for below in _below(kind, part)]
            content = content[part] if is_key else None
        else:
            kinds = [kind for kind in kinds if _is_named(kind, part)]
    return key, [kind for kind in holders if hasattr(kind, "model_fields")]


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows, unions and root models taken apart."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.RootModel):
        return _members(annotation.model_fields["root"].annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _members(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [member for argument in arguments for member in _members(argument)]
    return [annotation]


def _below(kind: Any, part: str | int) -> list[Any]:
    """The types that a value may have under a key of a model or mapping, or at a place of a list."""
    if part in getattr(kind, "model_fields", {}):
        return _members(kind.model_fields[part].annotation)
    return _members(typing.get_args(kind)[-1]) if typing.get_origin(kind) in (dict, list, tuple) else []


def _is_named(kind: Any, tag: str | int) -> bool:
    """Whether pydantic calls a member of a union so: by its class, or by the key that tells the members apart."""
    fields = getattr(kind, "model_fields", {}).values()
    return tag == getattr(kind, "__name__", None) or any(tag in typing.get_args(field.annotation) for field in fields)


def announce(stage: str, **sections: Any) -> None:
    """Print a stage's resolved parameters and save them in `.scratch/parameters/<stage>.yaml`, before any work."""
    resolved = {
        name: section.model_dump(mode="json") if isinstance(section, pydantic.BaseModel) else section
        for name, section in sections.items()
    }
    text = yaml.safe_dump(resolved, sort_keys=False)
    print(f"{stage}: parameters\n" + "".join(f"  {line}\n" for line in text.splitlines()), end="", flush=True)
    file = Path(".scratch/parameters") / f"{stage.replace('/', '_')}.yaml"
    with atomic_file(file) as temporary:
        temporary.write_text(text)


def stage_main(main: Callable[[], None]) -> None:
    """Run a stage; an error that the user can mend is one line and exit status 1, not a traceback."""
    try:
        main()
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if os.environ.get("FLIPSIDE_TRACEBACK"):
            raise
        print(f"error: {error}\n(set FLIPSIDE_TRACEBACK=1 for the traceback)", file=sys.stderr)
        sys.exit(1)

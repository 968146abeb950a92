"""The page on parameters, from the pydantic models that check params.yaml."""

from __future__ import annotations

from typing import Any

import pydantic

from docs.generate.schema import Model, Parameter
from docs.generate.tables import as_yaml, cell, code, table
from flipside.core import params as loader
from flipside.core.image_size import ImageSize
from flipside.core.params import Fraction

HEADER = ("key", "value", "type", "meaning")
KINDS = {str: "text", int: "whole number", ImageSize: "whole number > 0 or two of them",
         Fraction: "number between 0 and 1"}
SINGLE = {"profile": "The file in profiles/ whose values params.yaml has.",
          "dataset": "The data set that is run: the name of a block.",
          "seed": "Seed of every random number; each training adds its own `seed_offset`.",
          "image_size": "Slices become images of this many pixels a side: one number, or `[rows, columns]`.",
          "lesion_fraction": "About the share of a slice that a lesion covers, which the weights of L1 losses are "
                             "stated for: a guess from what is known of the disease, no mask is needed."}


def page() -> str:
    """The whole page, Markdown."""
    values = loader.read_params() | loader.read_datasets()
    parts = ["# Parameters", "",
             "Every key of `params.yaml` and `datasets.yaml`, as the models that check them describe it. The values "
             "are those that the two files have now. A key that is unknown, missing or of another type is refused by "
             "name before any work.", "",
             "Change one with `dvc exp run -S key=value`, many with a profile (`make profile P=gpu`).", "",
             "## Single values", "",
             table(HEADER, [row(Parameter(key, str(values[key]), KINDS[kind], SINGLE[key]))
                            for key, kind in loader.SECTIONS.items() if not isinstance(kind, str)])]
    entries: dict[str, str] = {}  # title -> heading and table
    for section, spec in loader.SECTIONS.items():
        if not isinstance(spec, str):
            continue
        parts += ["", f"## {section}", ""]
        if "{key}" in spec:
            for name, block in values[section].items():
                key = f"{section}.{name}"
                model = loader._import_model(spec.format(key=name), key)
                parts += [f"### {key}", "", *described(model), parameters(model, key, block), ""]
                entries |= list_entries(model)
        else:
            model = loader._import_model(spec, section)
            written = layouts if is_keyed_by_kind(model) else keys_of_a_block if values[section] == {} else parameters
            parts += [*described(model), written(model, section, values[section])]
            entries |= list_entries(model)
    parts += ["", "## Entries of lists", "", "What an entry of a list of mappings may be.", "", *entries.values()]
    return "\n".join(parts) + "\n"


def described(model: type[pydantic.BaseModel]) -> list[str]:
    """The first paragraph of the model's own docstring, where it says more than which section it is."""
    text = (model.__doc__ or "").strip().split("\n\n")[0] if "__doc__" in vars(model) else ""
    return [] if not text or text.startswith("Section `") and len(text) < 40 else [" ".join(text.split()), ""]


def parameters(model: type[pydantic.BaseModel], key: str, value: Any) -> str:
    """The table of a section or block."""
    return table(HEADER, map(row, Model(model.model_json_schema()).parameters(key, value)))


def list_entries(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """Title -> heading and table of every kind of entry that a list in a section may have."""
    schema = Model(model.model_json_schema())
    return {entry["title"]: f"### {schema.kind(entry)}\n\n{fields_table(schema, entry)}\n"
            for entry in schema.entries()}


def is_keyed_by_kind(model: type[pydantic.BaseModel]) -> bool:
    """Whether a section maps names to blocks of several kinds, as that of the data sets does."""
    blocks = model.model_json_schema().get("additionalProperties", {})
    return isinstance(blocks, dict) and "discriminator" in blocks


def layouts(model: type[pydantic.BaseModel], key: str, value: dict[str, dict[str, Any]]) -> str:
    """One table per layout, and the blocks that are there."""
    schema = Model(model.model_json_schema())
    parts = []
    for member in schema.members(schema.root["additionalProperties"]):
        parts += [f"### Layout {member['properties']['layout']['const']}", "", fields_table(schema, member), ""]
    rows = [(code(name), code(block["layout"]), code(block["root"]), cell(block.get("page", "")))
            for name, block in value.items()]
    parts += ["### Blocks that are there", "", table(("name", "layout", "folder", "where to get it"), rows)]
    return "\n".join(parts)


def keys_of_a_block(model: type[pydantic.BaseModel], key: str, value: dict[str, Any]) -> str:
    """The keys that each block of a section may have, where the section has no block yet."""
    schema = Model(model.model_json_schema())
    return fields_table(schema, schema.resolve(schema.root["additionalProperties"]))


def fields_table(schema: Model, member: dict[str, Any]) -> str:
    """The fields of one model with their defaults, those that must be given first."""
    fields = [(name, field) for name, field in member["properties"].items() if "const" not in field]
    fields.sort(key=lambda one: "default" in one[1])
    return table(("key", "default", "type", "meaning"), [
        (code(name), code(as_yaml(field["default"])) if "default" in field else "must be given", schema.kind(field),
         cell(field.get("description", ""))) for name, field in fields])


def row(parameter: Parameter) -> tuple[str, str, str, str]:
    """One line of a section's table."""
    return code(parameter.key), code(parameter.value), parameter.kind, cell(parameter.meaning)


def leaves(node: Any, key: str = "") -> list[str]:
    """Dotted keys of every value in a mapping that is no mapping itself."""
    if isinstance(node, dict) and node:
        return [leaf for name, below in node.items() for leaf in leaves(below, f"{key}.{name}" if key else str(name))]
    return [key]

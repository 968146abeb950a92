"""What pydantic models say of their parameters, read from their JSON schema: type, bounds and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docs.generate.tables import as_yaml

Schema = dict[str, Any]
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`",
         "null": "`null`", "object": "mapping"}
BOUNDS = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}"}


@dataclass(frozen=True)
class Parameter:
    """One leaf of params.yaml."""

    key: str  # dotted
    value: str  # as YAML
    kind: str  # type and bounds, Markdown
    meaning: str


class Model:
    """A model's JSON schema with its references resolved."""

    def __init__(self, schema: Schema):
        self.root = schema
        self.definitions: Schema = schema.get("$defs", {})

    def resolve(self, schema: Schema) -> Schema:
        """The schema behind a reference, with the referring field's own description."""
        if "$ref" not in schema:
            return schema
        target = self.definitions[schema["$ref"].rsplit("/", 1)[1]]
        return {**target, "description": schema.get("description", "")}

    def members(self, schema: Schema) -> list[Schema]:
        """The alternatives of a union, resolved; the schema itself where it is none."""
        schema = self.resolve(schema)
        options: list[Schema] = schema.get("oneOf") or schema.get("anyOf") or [schema]
        return [self.resolve(option) for option in options]

    def parameters(self, key: str, value: Any, schema: Schema | None = None) -> Iterator[Parameter]:
        """Every leaf of a value under a dotted key, in the model's order."""
        schema = self.resolve(self.root if schema is None else schema)
        fitting = self._member_for(value, schema)
        if isinstance(value, dict) and "properties" in fitting:
            for name, field in fitting["properties"].items():
                found = value.get(name, field.get("default"))
                yield from self.parameters(f"{key}.{name}", found, field)
        elif isinstance(value, dict) and isinstance(fitting.get("additionalProperties"), dict):
            for name, found in value.items():
                yield from self.parameters(f"{key}.{name}", found, fitting["additionalProperties"])
        else:
            yield Parameter(key, as_yaml(value), self.kind(schema), schema.get("description", ""))

    def _member_for(self, value: Any, schema: Schema) -> Schema:
        """The alternative of a union that a mapping belongs to: the one whose constants it has, or has by default."""
        for member in self.members(schema):
            fields = member.get("properties", {})
            if isinstance(value, dict) and all(value.get(name, field.get("default")) == field["const"]
                                               for name, field in fields.items() if "const" in field):
                return member
        return schema

    def kind(self, schema: Schema) -> str:
        """Type and bounds in words."""
        schema = self.resolve(schema)
        if "const" in schema:
            return f"`{as_yaml(schema['const'])}`"
        if "enum" in schema:
            return " or ".join(f"`{as_yaml(value)}`" for value in schema["enum"])
        if "anyOf" in schema or "oneOf" in schema:
            return " or ".join(dict.fromkeys(self.kind(option) for option in self.members(schema)))
        if schema.get("type") == "array":
            return self._list_kind(schema)
        if "properties" in schema:
            fields = schema["properties"]
            named = next((f"`{name}: {field['const']}`" for name, field in fields.items() if "const" in field), "")
            return named or f"mapping with {', '.join(f'`{name}`' for name in fields)}"
        bounds = [text.format(f"{schema[name]:g}") for name, text in BOUNDS.items() if name in schema]
        return " ".join([WORDS.get(schema.get("type", ""), "anything"), *filter(None, [", ".join(bounds)])])

    def _list_kind(self, schema: Schema) -> str:
        if "prefixItems" in schema:
            return f"[{', '.join(self.kind(item) for item in schema['prefixItems'])}]"
        items = self.members(schema.get("items", {}))
        if any("properties" in item for item in items):
            return "list of [mappings](#entries-of-lists)"
        least = f"at least {schema['minItems']}: " if schema.get("minItems") else ""
        return f"list, {least}{' or '.join(dict.fromkeys(self.kind(item) for item in items))}"

    def entries(self) -> Iterator[Schema]:
        """Models that stand as entries of lists anywhere below, each once."""
        seen: set[str] = set()
        for definition in (self.root, *self.definitions.values()):
            for field in definition.get("properties", {}).values():
                for item in self.members(self.resolve(field).get("items", {})):
                    if "properties" in item and item["title"] not in seen:
                        seen.add(item["title"])
                        yield item

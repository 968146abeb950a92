"""What pydantic refuses, as one sentence that names the parameter as it stands in the file."""

from __future__ import annotations

import types
import typing
from typing import Any

import pydantic
from pydantic_core import ErrorDetails


def explain(key: str, content: Any, model: type[pydantic.BaseModel], error: pydantic.ValidationError) -> str:
    """One sentence on why the content of the section `key` is no `model`.

    Only the first error is told, an unknown key before all others: a misspelt key also misses the right one. Members of
    a union that refuse the same value are joined by "or".
    """
    errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first = errors[0]
    where, models = _place(key, content, model, first)
    match first["type"]:
        case "extra_forbidden":
            return f"unknown parameter `{where}`; known are: {', '.join(models[0].model_fields)}"
        case "missing":
            return f"missing parameter `{where}`"
        case "union_tag_not_found":
            return f"missing parameter `{where}.{_discriminator(first)}`"
        case "union_tag_invalid":
            tag, expected = first["ctx"]["tag"], first["ctx"]["expected_tags"]
            return f"`{where}.{_discriminator(first)}` is {tag!r}; expected one of {expected}"
        case "value_error" if isinstance(first["input"], dict):  # two keys that don't go together
            return f"`{where}`: {_message(first)}"
    reasons = dict.fromkeys(_message(one) for one in errors if _place(key, content, model, one)[0] == where)
    found = "a mapping" if isinstance(first["input"], dict) else repr(first["input"])
    return f"`{where}` is {found}: {' or '.join(reasons)}"


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")


def _discriminator(error: ErrorDetails) -> str:
    """The key that tells the members of a union apart."""
    return error["ctx"]["discriminator"].strip("'")


def _place(key: str, content: Any, model: type[pydantic.BaseModel], error: ErrorDetails
           ) -> tuple[str, list[type[pydantic.BaseModel]]]:
    """Full key of a pydantic error, and the models of the mapping that holds the key's last part.

    In a union pydantic's location also names the member that was tried. Such a part is no key of the content: it is
    left out of the full key and selects the model.
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
    """Whether pydantic calls a member of a union so: by its class, or by the value of the discriminating key."""
    fields = getattr(kind, "model_fields", {}).values()
    return tag == getattr(kind, "__name__", None) or any(tag in typing.get_args(field.annotation) for field in fields)

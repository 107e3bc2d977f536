"""Answers in a given form: the plainest value that a JSON Schema allows, the same every time."""

import json
from collections.abc import Mapping

_DEPTH_MAX = 32
_PLAIN: Mapping[str, object] = {"string": "", "boolean": False, "null": None}


def json_answer(schema: object) -> str:
    """A JSON text of the form of `schema`, which is as a request has it. Words it does not know allow anything."""
    return json.dumps(_value(schema, schema, 0), ensure_ascii=False)


def _value(schema: object, root: object, depth: int) -> object:
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        return {}
    if "$ref" in schema:
        return _value(_resolved(str(schema["$ref"]), root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for choices in (schema.get("enum"), schema.get("examples")):
        if isinstance(choices, list) and choices:
            return choices[0]
    for word in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(word)
        if isinstance(branches, list) and branches:
            return _value(branches[0], root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Mapping[str, object], root: object, depth: int) -> object:
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "string":
        length = schema.get("minLength", 0)
        return "a" * (length if isinstance(length, int) else 0)
    if kind == "array":
        length = schema.get("minItems", 0)
        return [_value(schema.get("items"), root, depth + 1) for _ in range(length if isinstance(length, int) else 0)]
    if kind in _PLAIN:
        return _PLAIN[str(kind)]
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    return {name: _value(member, root, depth + 1) for name, member in properties.items()}


def _resolved(reference: str, root: object) -> object:
    """What "#/$defs/name" stands for; a reference that leads nowhere allows anything."""
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found

"""Values of a given form."""

import json

import jsonschema
import pytest

from enginehouse.engines.emulators.core.structured import json_answer

SCHEMAS: list[dict[str, object]] = [
    {"type": "object", "properties": {"name": {"type": "string", "minLength": 3}, "age": {"type": "integer"}}},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
    {"enum": ["red", "green"]},
    {"const": 7},
    {"type": ["number", "null"], "minimum": 4},
    {"anyOf": [{"type": "null"}, {"type": "string"}]},
    {"$ref": "#/$defs/point", "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}}}},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_value_is_of_the_schema(schema: dict[str, object]) -> None:
    jsonschema.validate(json.loads(json_answer(schema)), schema)


@pytest.mark.parametrize("schema", [None, {}, {"$ref": "#/nowhere"}, {"type": "unknown"}])
def test_what_says_nothing_allows_an_object(schema: object) -> None:
    assert json_answer(schema) == "{}"


def test_a_schema_that_holds_itself_ends() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}}
    assert json.loads(json_answer(schema))

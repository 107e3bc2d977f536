"""JSON objects as google.protobuf.Struct and back, in the order of their keys.

A Struct is a map and forgets that order, and engines generate the members of guided output in the order of the schema.
So each object carries the order as one more member, which is taken out again on the way back.
"""

import math
from collections.abc import Mapping

from google.protobuf import struct_pb2

from enginehouse.adapters._fields import malformed
from enginehouse.contract import RequestError

_ORDER = "\0order"  # no JSON Schema keyword and no sane property has this name


def to_struct(members: Mapping[str, object], path: str) -> struct_pb2.Struct:
    """`members` as a message.

    Args:
        members: as `json` reads an object.
        path: where it is in the body, for messages.

    Raises:
        RequestError: a number in it does not fit a double exactly, or a key is the one that holds the order.
    """
    struct = struct_pb2.Struct()
    _fill(struct, members, path)
    return struct


def to_plain(struct: struct_pb2.Struct) -> dict[str, object]:
    """The object again: whole numbers as int, keys in their first order, or sorted if nobody noted one.

    Raises:
        RequestError: a number in it is not finite.
    """
    names = set(struct.fields) - {_ORDER}
    noted = struct.fields[_ORDER].list_value.values if _ORDER in struct.fields else ()
    ordered = [value.string_value for value in noted]
    if set(ordered) != names or len(ordered) != len(names):
        ordered = sorted(names)
    return {name: _plain_value(struct.fields[name]) for name in ordered}


def _fill(struct: struct_pb2.Struct, members: Mapping[str, object], path: str) -> None:
    if _ORDER in members:
        raise RequestError(f"{path} holds a key that begins with a null character", metadata={"field": path})
    for name, value in members.items():
        _fill_value(struct.fields[name], value, path)
    if len(members) > 1:
        for name in members:
            struct.fields[_ORDER].list_value.values.add(string_value=name)


def _fill_value(target: struct_pb2.Value, value: object, path: str) -> None:
    match value:
        case None:
            target.null_value = struct_pb2.NULL_VALUE
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = _exact(value, path)
        case str():
            target.string_value = value
        case list():
            target.list_value.SetInParent()
            for item in value:
                _fill_value(target.list_value.values.add(), item, path)
        case dict():
            target.struct_value.SetInParent()
            _fill(target.struct_value, value, path)
        case _:
            raise malformed(path, value, "JSON")


def _exact(number: float, path: str) -> float:
    try:
        converted = float(number)
    except OverflowError:
        converted = math.inf
    if not math.isfinite(converted) or converted != number:
        raise RequestError(f"{path} holds a number that does not fit 64 bits exactly", metadata={"field": path})
    return converted


def _plain_value(value: struct_pb2.Value) -> object:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _plain_number(value.number_value)
        case "string_value":
            return value.string_value
        case "list_value":
            return [_plain_value(item) for item in value.list_value.values]
        case "struct_value":
            return to_plain(value.struct_value)
        case _:
            return None


def _plain_number(number: float) -> float:
    if not math.isfinite(number):
        raise RequestError("a JSON Schema holds a number that is not finite; JSON has no such numbers")
    return int(number) if number.is_integer() else number

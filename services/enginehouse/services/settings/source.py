"""A YAML file that knows its lines: what is wrong in it is said with file, line, key, value and what was expected."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import yaml
from pydantic import ValidationError

from enginehouse.contract import RequestError

Keys: TypeAlias = tuple[str | int, ...]
_SHOWN_CHARACTERS = 60
_NOT_KEYS = ("tokens", "hourly", "[key]")
"""Parts of pydantic's locations that are no keys of the file: tags of a union, the mark of a mapping's own key."""
_MERGE = "<<"


class _Loader(yaml.SafeLoader):
    """Reads true and false as YAML 1.2 does: to YAML 1.1 Norway ("no") is a falsehood, and so a place that is lost."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read.

    Attributes:
        file: its path.
        tree: YAML's nodes, which know their lines.
        content: plain values.
    """

    file: Path
    tree: yaml.Node | None
    content: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads a file.

        Raises:
            RequestError: it cannot be read, is no YAML, holds no keys, or a key twice.
        """
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"{file}: cannot be read: {error}") from error
        try:
            tree = yaml.compose(text, Loader=_Loader)
            content = yaml.load(text, Loader=_Loader) or {}  # noqa: S506 (it is a SafeLoader)
        except yaml.YAMLError as error:
            raise RequestError(f"{_marked(file, error)}: not YAML: {_reason(error)}") from error
        if not isinstance(content, dict):
            raise RequestError(f"{file}: expected keys and values at the top, found {type(content).__name__}")
        twice = [
            f"{file}:{line}: {_dotted(keys)}this key is there twice; the one would hide the other"
            for keys, line in _repeated(tree, ())
        ]
        if twice:
            raise RequestError("\n".join(twice))
        return cls(file, tree, content)

    def problem(self, keys: Keys, message: str) -> str:
        """A line about what is wrong at `keys`."""
        return f"{self._where(keys)}: {_dotted(keys)}{message}"

    def problems(self, error: ValidationError) -> list[str]:
        """A line for everything that pydantic found."""
        return [self._problem(dict(detail)) for detail in error.errors(include_url=False)]

    def _problem(self, detail: Mapping[str, Any]) -> str:
        keys: Keys = tuple(key for key in detail["loc"] if key not in _NOT_KEYS)
        if detail["type"] == "missing":
            return self.problem(keys, "this key is missing")
        if detail["type"] == "extra_forbidden":
            return self.problem(keys, "there is no such key")
        message = str(detail["msg"]).removeprefix("Value error, ")
        shown = repr(detail["input"])
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "…"
        return self.problem(keys, f"{message}; found {shown}")

    def _where(self, keys: Keys) -> str:
        variable = "ENGINEHOUSE_" + "__".join(str(key) for key in keys).upper()
        return variable if variable in os.environ else f"{self.file}:{_line(self.tree, keys)}"


def _marked(file: Path, error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f"{file}:{mark.line + 1}" if mark else str(file)


def _reason(error: yaml.YAMLError) -> str:
    parts = (error.context, error.problem) if isinstance(error, yaml.MarkedYAMLError) else (str(error),)
    return ": ".join(part for part in parts if part)


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys) + ": " if keys else ""


def _line(node: yaml.Node | None, keys: Keys) -> int:
    """The line of the deepest part of `keys` that the file has."""
    line = 1
    for key in keys:
        name, node = _child(node, key)
        if node is None:
            break
        # what is nested begins a line below its key, and a scalar is where it is written
        line = (name if name is not None and not isinstance(node, yaml.ScalarNode) else node).start_mark.line + 1
    return line


def _child(node: yaml.Node | None, key: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        return next(((name, value) for name, value in node.value if name.value == str(key)), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return None, node.value[key]
    return None, None


def _repeated(node: yaml.Node | None, keys: Keys) -> Iterator[tuple[Keys, int]]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*keys, index))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if name.value in seen and name.value != _MERGE:
                yield (*keys, name.value), name.start_mark.line + 1
            seen.add(name.value)
            yield from _repeated(value, (*keys, name.value))

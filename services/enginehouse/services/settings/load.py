"""Reads the settings and says, when they are wrong, where, what was found and what was expected."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from enginehouse.contract import RequestError
from enginehouse.services.deploy_files import deploy_folder
from enginehouse.services.settings.model import Settings
from enginehouse.services.settings.references import Keys, problems

FILE_NAME = "enginehouse.yaml"
_SHOWN_CHARACTERS = 60
_UNION_TAGS = ("tokens", "hourly")


def find_file(given: Path | None) -> Path:
    """The file to read: the one that was given, ./enginehouse.yaml, or the one that is shipped.

    Raises:
        RequestError: the given file does not exist.
    """
    if given is not None:
        if not given.is_file():
            raise RequestError(f"{given}: no such file; name an existing one with --config, or leave it out")
        return given
    local = Path(FILE_NAME)
    return local if local.is_file() else deploy_folder() / FILE_NAME


def load(file: Path, flags: Mapping[str, Any] | None = None) -> Settings:
    """Reads `file`, puts the environment and then the flags over it, and validates the whole.

    Args:
        file: YAML.
        flags: nested values by key, as given on the command line.

    Raises:
        RequestError: one line per problem: file, line, key, value, and what was expected.
    """
    text = file.read_text()
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise RequestError(f"{file}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{file}: expected keys and values at the top, found {type(content).__name__}")
    try:
        settings = _with_file(content)(**(flags or {}))
    except ValidationError as error:
        lines = [_problem(file, tree, dict(detail)) for detail in error.errors(include_url=False)]
        raise RequestError("\n".join(lines)) from error
    wrong = [f"{_source(file, tree, one.keys)}: {_dotted(one.keys)}{one.message}" for one in problems(settings)]
    if wrong:
        raise RequestError("\n".join(wrong))
    return settings


def _with_file(content: dict[str, Any]) -> type[Settings]:
    class FileSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings' signature)
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, content)

    return FileSettings


def _problem(file: Path, tree: yaml.Node | None, detail: dict[str, Any]) -> str:
    keys: Keys = tuple(key for key in detail["loc"] if key not in _UNION_TAGS)
    where = f"{_source(file, tree, keys)}: {_dotted(keys)}"
    if detail["type"] == "missing":
        return f"{where}this key is missing"
    if detail["type"] == "extra_forbidden":
        return f"{where}there is no such key"
    message = str(detail["msg"]).removeprefix("Value error, ")
    shown = repr(detail["input"])
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "…"
    return f"{where}{message}; found {shown}"


def _dotted(keys: Keys) -> str:
    return ".".join(str(key) for key in keys) + ": " if keys else ""


def _source(file: Path, tree: yaml.Node | None, keys: Keys) -> str:
    variable = "ENGINEHOUSE_" + "__".join(str(key) for key in keys).upper()
    return variable if variable in os.environ else f"{file}:{_line(tree, keys)}"


def _line(node: yaml.Node | None, keys: Keys) -> int:
    """The line of the deepest part of `keys` that the file has."""
    line = 1
    for key in keys:
        node = _child(node, key)
        if node is None:
            break
        line = node.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == str(key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        child: yaml.Node = node.value[key]
        return child
    return None

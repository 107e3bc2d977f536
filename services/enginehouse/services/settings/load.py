"""Reads the settings and says, when they are wrong, where, what was found and what was expected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from enginehouse.contract import RequestError
from enginehouse.services.deploy_files import deploy_folder
from enginehouse.services.policies import Catalog, policy_set_problems, read_problem
from enginehouse.services.settings.model import Settings
from enginehouse.services.settings.policy import PolicyFile, Rule
from enginehouse.services.settings.policy_messages import policy_set_message, set_keys
from enginehouse.services.settings.references import problems
from enginehouse.services.settings.source import Source
from enginehouse.v1 import admin_pb2

FILE_NAME = "enginehouse.yaml"
_WHOLE_SETTINGS = "place"
"""The key that every settings file has, and no file of rules alone."""


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
    return _load(Source.read(file), flags or {})


@dataclass(frozen=True, slots=True)
class WrittenPolicies:
    """The rules of a file, and where in it each of their fields was written.

    Attributes:
        message: the set, for `UpdatePolicySet`.
    """

    message: admin_pb2.PolicySet
    _source: Source
    _rules: Sequence[Rule]

    def located(self, text: str) -> list[str]:
        """The lines of an error of control, those that name a field with the line of the file that it is from."""
        found = [(line, read_problem(line)) for line in text.split("\n")]
        return [
            line if problem is None else self._source.problem(set_keys(problem.path, self._rules), problem.message)
            for line, problem in found
        ]


def load_policies(file: Path, catalog: Catalog) -> WrittenPolicies:
    """Reads the rules of a file: one that holds `policies` and `data_classes` alone, or whole settings.

    Args:
        file: YAML.
        catalog: what the rules may refer to, as far as it is known here.

    Raises:
        RequestError: one line per problem: file, line, key, value, and what was expected.
    """
    source = Source.read(file)
    if _WHOLE_SETTINGS in source.content:
        settings = _load(source, {})
        rules, classes = settings.policies, settings.data_classes
    else:
        try:
            read = PolicyFile.model_validate(source.content)
        except ValidationError as error:
            raise RequestError("\n".join(source.problems(error))) from error
        rules, classes = read.policies, read.data_classes
    message = policy_set_message(rules, classes)
    wrong = [source.problem(set_keys(one.path, rules), one.message) for one in policy_set_problems(message, catalog)]
    if wrong:
        raise RequestError("\n".join(wrong))
    return WrittenPolicies(message, source, rules)


def _load(source: Source, flags: Mapping[str, Any]) -> Settings:
    try:
        settings = _with_file(source.content)(**flags)
    except ValidationError as error:
        raise RequestError("\n".join(source.problems(error))) from error
    wrong = [source.problem(one.keys, one.message) for one in problems(settings)]
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

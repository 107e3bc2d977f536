"""Resource names (AIP-122): the one place where they are read and written."""

import re
from dataclasses import dataclass, fields
from string import Formatter
from typing import ClassVar, Self

from enginehouse.contract import RequestError

WILDCARD = "-"
"""Stands for every id of its collection where lists are read (AIP-159); it is no id itself."""

_ID = re.compile(r"[a-z0-9-]{1,63}")


def checked_id(text: str, what: str) -> str:
    """`text` if it is an id: 1 to 63 of ``a-z0-9-``, not ``-`` alone.

    Args:
        text: the id.
        what: what it identifies, for the message.

    Raises:
        RequestError: it is not one. Ids hold no dots, because they are parts of subjects.
    """
    if not _ID.fullmatch(text) or text == WILDCARD:
        raise RequestError(f"{what} {text[:80]!r} is not an id: use 1 to 63 of a-z, 0-9 and '-'")
    return text


@dataclass(frozen=True, slots=True, order=True)
class _Name:
    _format: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a name.

        Raises:
            RequestError: it has another form, or an id in it is none.
        """
        ids = cls._split(text)
        return cls(*(checked_id(part, field.name) for part, field in zip(ids, fields(cls), strict=True)))

    @classmethod
    def parse_pattern(cls, text: str) -> Self:
        """Reads a name in which ``-`` may stand for every id."""
        ids = cls._split(text)
        return cls(
            *(
                part if part == WILDCARD else checked_id(part, field.name)
                for part, field in zip(ids, fields(cls), strict=True)
            )
        )

    @classmethod
    def matches(cls, text: str) -> bool:
        """Whether `text` has the form of such a name, whatever its ids."""
        return _segments(cls._format, text) is not None

    @classmethod
    def _split(cls, text: str) -> list[str]:
        ids = _segments(cls._format, text)
        if ids is None:
            raise RequestError(f"{text[:200]!r} is not a name of the form {cls._format!r}")
        return ids

    def __str__(self) -> str:
        return self._format.format(**{field.name: getattr(self, field.name) for field in fields(self)})


def _segments(form: str, text: str) -> list[str] | None:
    wanted, given = form.split("/"), text.split("/")
    if len(wanted) != len(given):
        return None
    ids = []
    for want, part in zip(wanted, given, strict=True):
        if any(name for _, name, _, _ in Formatter().parse(want)):
            ids.append(part)
        elif want != part:
            return None
    return ids


@dataclass(frozen=True, slots=True, order=True)
class OrganizationName(_Name):
    """Name of an organization."""

    _format = "organizations/{organization}"
    organization: str


@dataclass(frozen=True, slots=True, order=True)
class TenantName(_Name):
    """Name of a tenant."""

    _format = "organizations/{organization}/tenants/{tenant}"
    organization: str
    tenant: str


@dataclass(frozen=True, slots=True, order=True)
class ProjectName(_Name):
    """Name of a project."""

    _format = "organizations/{organization}/tenants/{tenant}/projects/{project}"
    organization: str
    tenant: str
    project: str


@dataclass(frozen=True, slots=True, order=True)
class KeyName(_Name):
    """Name of a key."""

    _format = "organizations/{organization}/tenants/{tenant}/projects/{project}/keys/{key}"
    organization: str
    tenant: str
    project: str
    key: str


@dataclass(frozen=True, slots=True, order=True)
class LimitName(_Name):
    """Name of a limit."""

    _format = "limits/{limit}"
    limit: str


@dataclass(frozen=True, slots=True, order=True)
class PolicySetName(_Name):
    """Name of a set of policy rules."""

    _format = "policies/{policy_set}"
    policy_set: str


@dataclass(frozen=True, slots=True, order=True)
class DeploymentName(_Name):
    """Name of a deployment."""

    _format = "deployments/{deployment}"
    deployment: str

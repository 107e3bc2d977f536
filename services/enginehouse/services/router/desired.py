"""The desired state, read once per change: tenants, policies, keys, limits and deployments."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import structlog
from google.protobuf.message import DecodeError

from enginehouse.router import Jurisdictions, PolicySet
from enginehouse.router.limits import Limit
from enginehouse.services.router.keys import KeyRing
from enginehouse.services.router.resources import limit_from_message, policy_set
from enginehouse.v1 import admin_pb2

_log = structlog.get_logger(__name__)
POLICIES_KEY = "policies.default"
"""The entry that holds the organization's rules. There is one set."""


@dataclass(frozen=True)
class Desired:
    """What control wants the mesh to be.

    Attributes:
        version: hash of all of it.
        policies: every rule, and which tenants there are.
        deployments: by id.
    """

    version: str = ""
    policies: PolicySet = field(default_factory=PolicySet)
    keys: KeyRing = field(default_factory=KeyRing)
    limits: tuple[Limit, ...] = ()
    deployments: Mapping[str, admin_pb2.Deployment] = field(default_factory=dict)

    @cached_property
    def models(self) -> dict[str, tuple[str, ...]]:
        """The deployments of each public name and alias, in a fixed order."""
        models: dict[str, tuple[str, ...]] = {}
        for deployment_id, deployment in sorted(self.deployments.items()):
            for name in dict.fromkeys((deployment.model, *deployment.aliases)):
                models[name] = (*models.get(name, ()), deployment_id)
        return models


@dataclass(slots=True)
class _Entries:
    """What the bucket holds, by kind."""

    tenants: list[admin_pb2.Tenant] = field(default_factory=list)
    keys: list[admin_pb2.Key] = field(default_factory=list)
    limits: list[admin_pb2.Limit] = field(default_factory=list)
    deployments: list[admin_pb2.Deployment] = field(default_factory=list)
    policies: admin_pb2.PolicySet = field(default_factory=admin_pb2.PolicySet)
    are_policies_readable: bool = True


def read_desired(entries: Mapping[str, bytes], jurisdictions: Jurisdictions) -> Desired:
    """Reads the bucket `desired`.

    An entry that is not what its key says is left out: it can allow nothing. Rules that cannot be read may be the ones
    that forbid, so without them nobody is allowed anything.
    """
    found = _Entries()
    version = hashlib.blake2b(digest_size=8)
    for key, value in sorted(entries.items()):
        version.update(f"{key}={len(value)}:".encode() + value)
        try:
            _take(found, key, value)
        except DecodeError:
            _log.error("unreadable entry in the desired state", key=key)
            found.are_policies_readable &= key != POLICIES_KEY
    return Desired(
        version=version.hexdigest(),
        policies=policy_set(found.tenants if found.are_policies_readable else (), found.policies, jurisdictions),
        keys=KeyRing(found.keys),
        limits=tuple(limit_from_message(limit) for limit in found.limits),
        deployments={deployment.name.removeprefix("deployments/"): deployment for deployment in found.deployments},
    )


def _take(found: _Entries, key: str, value: bytes) -> None:
    match key.partition(".")[0]:
        case "tenants":
            found.tenants.append(admin_pb2.Tenant.FromString(value))
        case "keys":
            found.keys.append(admin_pb2.Key.FromString(value))
        case "limits":
            found.limits.append(admin_pb2.Limit.FromString(value))
        case "deployments":
            found.deployments.append(admin_pb2.Deployment.FromString(value))
        case "policies" if key == POLICIES_KEY:
            found.policies = admin_pb2.PolicySet.FromString(value)

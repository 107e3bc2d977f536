"""The desired state, read once per change: tenants, keys, limits and deployments."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError

from enginehouse.router import Policy
from enginehouse.router.limits import Limit
from enginehouse.services.router.keys import KeyRing
from enginehouse.services.router.resources import limit_from_message, policy_from_message
from enginehouse.v1 import admin_pb2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Desired:
    """What control wants the mesh to be.

    Attributes:
        version: hash of all of it.
        policies: by tenant resource name.
        deployments: by id.
    """

    version: str = ""
    policies: Mapping[str, Policy] = field(default_factory=dict)
    keys: KeyRing = field(default_factory=KeyRing)
    limits: tuple[Limit, ...] = ()
    deployments: Mapping[str, admin_pb2.Deployment] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """The deployments of each public name and alias, in a fixed order."""
        models: dict[str, tuple[str, ...]] = {}
        for deployment_id, deployment in sorted(self.deployments.items()):
            for name in (deployment.model, *deployment.aliases):
                models[name] = (*models.get(name, ()), deployment_id)
        return models


def read_desired(entries: Mapping[str, bytes]) -> Desired:
    """Reads the bucket `desired`. An entry that is not what its key says is left out: it can allow nothing."""
    tenants: list[admin_pb2.Tenant] = []
    keys: list[admin_pb2.Key] = []
    limits: list[admin_pb2.Limit] = []
    deployments: list[admin_pb2.Deployment] = []
    version = hashlib.blake2b(digest_size=8)
    for key, value in sorted(entries.items()):
        version.update(f"{key}={len(value)}:".encode() + value)
        try:
            match key.partition(".")[0]:
                case "tenants":
                    tenants.append(admin_pb2.Tenant.FromString(value))
                case "keys":
                    keys.append(admin_pb2.Key.FromString(value))
                case "limits":
                    limits.append(admin_pb2.Limit.FromString(value))
                case "deployments":
                    deployments.append(admin_pb2.Deployment.FromString(value))
        except DecodeError:
            _log.warning("unreadable entry in the desired state", key=key)
    return Desired(
        version=version.hexdigest(),
        policies={tenant.name: policy_from_message(tenant.policy) for tenant in tenants},
        keys=KeyRing(keys),
        limits=tuple(limit_from_message(limit) for limit in limits),
        deployments={deployment.name.removeprefix("deployments/"): deployment for deployment in deployments},
    )

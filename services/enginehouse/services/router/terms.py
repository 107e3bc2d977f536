"""On which terms a replica is offered while two revisions of its deployment run side by side.

The newest revision says who may use a deployment, in which lane, how much at once, and whether at all. What describes
the engine itself (price, quality, how much it does side by side) belongs to the revision that the engine was started
for: an old engine is not the better one that takes its place, and does not cost what that one costs.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from enginehouse.services.settings_hash import settings_hash
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2

_REMEMBERED_MAX = 8


@dataclass(frozen=True, slots=True)
class Terms:
    """How one replica is offered.

    Attributes:
        deployment: the newest revision.
        placement: with price and quality of the revision that the engine was started for.
        parallel: requests that the engine works on side by side.
        unavailable: why it is not offered at all. Empty: it is.
    """

    deployment: admin_pb2.Deployment
    placement: admin_pb2.Placement
    parallel: int
    unavailable: str = ""


class TermsBook:
    """Remembers the revisions that engines still run."""

    def __init__(self) -> None:
        self._hashes: dict[str, str] = {}
        self._earlier: dict[str, dict[str, admin_pb2.Deployment]] = {}

    def take(self, deployments: Mapping[str, admin_pb2.Deployment]) -> None:
        """Takes in the newest revision of every deployment, by id."""
        self._hashes = {name: settings_hash(deployment) for name, deployment in deployments.items()}
        self._earlier = {name: self._earlier.get(name, {}) for name in deployments}
        for name, deployment in deployments.items():
            known = self._earlier[name]
            known.pop(self._hashes[name], None)
            known[self._hashes[name]] = deployment
            while len(known) > _REMEMBERED_MAX:
                del known[next(iter(known))]

    def entries(self) -> dict[str, bytes]:
        """Everything that is remembered, for a disk."""
        return {
            f"{name}.{hashed}": deployment.SerializeToString()
            for name, known in self._earlier.items()
            for hashed, deployment in known.items()
        }

    def restore(self, entries: Mapping[str, bytes]) -> None:
        """Takes in what an earlier process of this router remembered."""
        for key, value in entries.items():
            name, _, hashed = key.rpartition(".")
            with contextlib.suppress(DecodeError):
                self._earlier.setdefault(name, {}).setdefault(hashed, admin_pb2.Deployment.FromString(value))

    def terms(self, deployment: admin_pb2.Deployment, replica: node_pb2.Replica, node: str) -> Terms | None:
        """The terms of a replica; None when its deployment is not placed on the node."""
        placement = placement_on(deployment, node)
        if placement is None:
            return None
        if replica.settings_hash in ("", self._hashes.get(replica.deployment)):
            return Terms(deployment, placement, deployment.settings.parallel)
        earlier = self._earlier.get(replica.deployment, {}).get(replica.settings_hash)
        if earlier is None:
            return _of_unknown(deployment, placement, replica)
        offered = admin_pb2.Placement()
        offered.CopyFrom(placement)
        described = placement_on(earlier, node) or placement
        offered.quality = described.quality
        offered.ClearField("quality_scores")
        offered.quality_scores.update(described.quality_scores)
        offered.ClearField("price")
        if described.HasField("price"):
            offered.price.CopyFrom(described.price)
        return Terms(deployment, offered, earlier.settings.parallel, _other_model(deployment, earlier.model))


def placement_on(deployment: admin_pb2.Deployment, node: str) -> admin_pb2.Placement | None:
    """Where a deployment is placed on a node; None when it is not."""
    return next((placement for placement in deployment.placements if placement.node == node), None)


def _of_unknown(deployment: admin_pb2.Deployment, placement: admin_pb2.Placement, replica: node_pb2.Replica) -> Terms:
    """Of an engine of a revision that this router never saw: nothing is promised but the price that is in force."""
    offered = admin_pb2.Placement()
    offered.CopyFrom(placement)
    offered.quality = common_pb2.QUALITY_UNSPECIFIED
    offered.ClearField("quality_scores")
    return Terms(deployment, offered, 1, _other_model(deployment, replica.served_model))


def _other_model(deployment: admin_pb2.Deployment, model: str) -> str:
    return f"runs {model}, which is to be replaced by {deployment.model}" if model != deployment.model else ""

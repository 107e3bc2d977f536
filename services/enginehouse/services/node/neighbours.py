"""What other nodes do for a deployment, as the registry has it: who may leave a gap, and in which order."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from enginehouse.engines import READY
from enginehouse.services.node.rolling import Elsewhere
from enginehouse.v1 import admin_pb2, node_pb2


def elsewhere(
    node: str,
    deployment: admin_pb2.Deployment,
    settings_hash: str,
    registrations: Mapping[str, bytes],
) -> Elsewhere:
    """What the nodes beside `node` do for a deployment.

    Nodes that have to leave a gap while they replace their replicas do so one after the other, in the order of the
    deployment's placements. A node that is in no registry is dead, or has never been there, and nobody waits for it.

    Args:
        settings_hash: of the deployment's newest revision.
        registrations: the bucket of that name.
    """
    deployment_id = deployment.name.removeprefix("deployments/")
    serves, turn, is_before = False, "", True
    for placement in deployment.placements:
        if placement.node == node:
            is_before = False
            continue
        registration = _registration(registrations.get(f"nodes.{placement.node}", b""))
        if not registration.node or registration.draining:
            continue
        ready = [one for one in registration.replicas if one.deployment == deployment_id and one.state == READY]
        serves = serves or bool(ready)
        newest = [one for one in ready if one.settings_hash == settings_hash]
        if is_before and not turn and len(newest) < max(1, placement.replicas):
            turn = f"node {placement.node} replaces its own before"
    return Elsewhere(serves, turn)


def _registration(entry: bytes) -> node_pb2.Registration:
    try:
        return node_pb2.Registration.FromString(entry)
    except DecodeError:
        return node_pb2.Registration()

"""Nodes that have to leave a gap do so one after the other."""

from collections.abc import Mapping

import pytest

from enginehouse.services.node.neighbours import elsewhere
from enginehouse.services.node.rolling import Elsewhere
from enginehouse.services.node.sight import RouterSight
from enginehouse.v1 import admin_pb2, node_pb2

READY, LOADING = node_pb2.REPLICA_STATE_READY, node_pb2.REPLICA_STATE_LOADING
DEPLOYMENT = admin_pb2.Deployment(
    name="deployments/chat",
    placements=[admin_pb2.Placement(node=node, replicas=1) for node in ("a", "b", "c")],
)
NEW, OLD = "new", "old"


def registry(*, draining: str = "", **nodes: tuple[str, node_pb2.ReplicaState.ValueType]) -> Mapping[str, bytes]:
    """The registry with one replica of the deployment on each node: what it runs, and its state."""
    return {
        f"nodes.{node}": node_pb2.Registration(
            node=node,
            draining=node == draining,
            replicas=[
                node_pb2.Replica(deployment="chat", settings_hash=settings, state=state),
                node_pb2.Replica(deployment="another", settings_hash=NEW, state=READY),
            ],
        ).SerializeToString()
        for node, (settings, state) in nodes.items()
    }


@pytest.mark.parametrize(
    ("node", "known", "expected"),
    [
        ("a", registry(a=(OLD, READY), b=(OLD, READY)), Elsewhere(serves=True)),
        ("b", registry(a=(OLD, READY), b=(OLD, READY)), Elsewhere(True, "node a replaces its own before")),
        ("b", registry(a=(NEW, LOADING), b=(OLD, READY)), Elsewhere(False, "node a replaces its own before")),
        ("b", registry(a=(NEW, READY), b=(OLD, READY)), Elsewhere(serves=True)),
        ("c", registry(a=(NEW, READY), b=(OLD, READY)), Elsewhere(True, "node b replaces its own before")),
        ("c", registry(c=(OLD, READY)), Elsewhere()),
        ("c", registry(a=(OLD, READY), draining="a"), Elsewhere()),
        ("b", {"nodes.a": b"\xff no registration"}, Elsewhere()),
    ],
)
def test_node_waits_for_those_before_it_that_are_alive(
    node: str, known: Mapping[str, bytes], expected: Elsewhere
) -> None:
    assert elsewhere(node, DEPLOYMENT, NEW, known) == expected


def test_only_routers_that_watch_have_a_say() -> None:
    sight, changes = RouterSight(), list[int]()
    sight.on_change = lambda: changes.append(1)
    sight.confirm("stranger", ["r"])
    assert (sight.all_use("r"), sight.any_uses("r"), changes) == (True, False, [])
    with sight.watching("one"), sight.watching("two"), sight.watching(""):
        sight.confirm("one", ["r"])
        assert (sight.all_use("r"), sight.any_uses("r")) == (False, True)
        sight.confirm("two", ["r", "s"])
        assert (sight.all_use("r"), sight.all_use("s")) == (True, False)
    assert (sight.all_use("s"), sight.any_uses("s")) == (True, False)


def test_router_that_is_back_before_its_old_stream_has_ended_is_still_heard() -> None:
    sight = RouterSight()
    with sight.watching("one"):
        with sight.watching("one"):
            sight.confirm("one", ["r"])
        assert sight.any_uses("r")
    assert not sight.any_uses("r")

"""What a router makes of replicas of which a node does not speak."""

from google.protobuf.timestamp_pb2 import Timestamp

from enginehouse.router import Replica
from enginehouse.services.router.desired import Desired
from enginehouse.services.router.fleet import Fleet
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2
from tests.unit.services_router.build import JURISDICTIONS

PLACEMENT = admin_pb2.Placement(node="eu-de", price=common_pb2.Price(request_nanousd=1), replicas=2)
DEPLOYMENT = admin_pb2.Deployment(name="deployments/chat", model="chat", engine="echo", placements=[PLACEMENT])
DESIRED = Desired(version="1", deployments={"chat": DEPLOYMENT})
CAPABILITIES = node_pb2.Capabilities(operations=[common_pb2.OPERATION_CHAT], context_tokens_max=512)


def registration(second: int, *replicas: str) -> node_pb2.Registration:
    """The node's words at `second`: these replicas are ready."""
    return node_pb2.Registration(
        node="eu-de",
        place="eu/de",
        address="127.0.0.1:1",
        registered_at=Timestamp(seconds=second),
        replicas=[
            node_pb2.Replica(
                id=replica,
                deployment="chat",
                state=node_pb2.REPLICA_STATE_READY,
                address="127.0.0.1:2",
                capabilities=CAPABILITIES,
            )
            for replica in replicas
        ],
    )


def fleet_that_heard(*registrations: node_pb2.Registration) -> Fleet:
    """A fleet whose one node has said this, one after the other."""
    fleet = Fleet(JURISDICTIONS, ["eu/de"], lambda: None)
    for one in registrations:
        fleet.status(one)
    return fleet


def replicas_of(fleet: Fleet, desired: Desired = DESIRED) -> dict[str, Replica]:
    """The replicas of its view by id."""
    return {replica.id: replica for group in fleet.view(desired).replicas.values() for replica in group}


def test_replicas_that_a_restarted_node_does_not_speak_of_yet_are_awaited() -> None:
    both = registration(1, "chat-eu-de-0", "chat-eu-de-1")
    known = replicas_of(fleet_that_heard(both, registration(2)))
    assert {replica: one.unavailable for replica, one in known.items()} == {
        "chat-eu-de-0": "is pending",
        "chat-eu-de-1": "is pending",
    }
    assert known["chat-eu-de-0"].capabilities.operations == {common_pb2.OPERATION_CHAT}
    assert known["chat-eu-de-0"].place == JURISDICTIONS.place("eu/de")


def test_replica_that_is_spoken_of_is_not_awaited_as_well() -> None:
    known = replicas_of(fleet_that_heard(registration(1, "chat-eu-de-0")))
    assert {replica: one.unavailable for replica, one in known.items()} == {
        "chat-eu-de-0": "",
        "chat-eu-de-1": "is pending",
    }


def test_replica_that_is_no_longer_placed_is_not_awaited() -> None:
    fleet = fleet_that_heard(registration(1, "chat-eu-de-0"), registration(2))
    assert replicas_of(fleet, Desired(version="2")) == {}


def test_words_that_are_older_change_nothing() -> None:
    fleet = fleet_that_heard(registration(2, "chat-eu-de-0", "chat-eu-de-1"), registration(1))
    assert all(not replica.unavailable for replica in replicas_of(fleet).values())

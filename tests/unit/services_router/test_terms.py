"""What a router offers while an old engine and its successor run side by side."""

from dataclasses import dataclass, replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from enginehouse.router import Price, Replica
from enginehouse.services.router.desired import Desired
from enginehouse.services.router.fleet import Fleet
from enginehouse.services.settings_hash import settings_hash
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2
from tests.unit.services_router.build import JURISDICTIONS

NODE = "eu-de"


@dataclass(frozen=True)
class Revision:
    """One revision of a deployment on one node."""

    number: int
    engine: str = "echo"
    model: str = "chat"
    nanousd: int = 1
    quality: common_pb2.Quality.ValueType = common_pb2.QUALITY_LOW
    parallel: int = 2

    @property
    def message(self) -> admin_pb2.Deployment:
        """As control declares it."""
        return admin_pb2.Deployment(
            name="deployments/chat",
            model=self.model,
            engine=self.engine,
            revision=self.number,
            settings=admin_pb2.EngineSettings(parallel=self.parallel),
            placements=[
                admin_pb2.Placement(
                    node=NODE,
                    price=common_pb2.Price(request_nanousd=self.nanousd),
                    quality=self.quality,
                    quality_scores={"code": self.quality / 10},
                    in_flight_max=self.nanousd,
                )
            ],
        )

    @property
    def desired(self) -> Desired:
        """As routers have it."""
        return Desired(version=str(self.number), deployments={"chat": self.message})

    def replica(self, replica_id: str) -> node_pb2.Replica:
        """A replica that was started with it."""
        return node_pb2.Replica(
            id=replica_id,
            deployment="chat",
            revision=self.number,
            state=node_pb2.REPLICA_STATE_READY,
            address=f"127.0.0.1:{7000 + self.number}",
            served_model=self.model,
            settings_hash=settings_hash(self.message),
        )


OLD = Revision(1)
NEW = Revision(2, engine="vllm", nanousd=9, quality=common_pb2.QUALITY_HIGH, parallel=32)


def fleet_with(*replicas: node_pb2.Replica) -> Fleet:
    """A fleet of one node with these replicas."""
    fleet = Fleet(JURISDICTIONS, ["eu/de"], lambda: None)
    fleet.status(
        node_pb2.Registration(
            node=NODE, place="eu/de", address="127.0.0.1:1", registered_at=Timestamp(seconds=1), replicas=replicas
        )
    )
    return fleet


def offered(fleet: Fleet, revision: Revision) -> dict[str, Replica]:
    """The replicas of the view that a revision makes, by id."""
    return {replica.id: replica for group in fleet.view(revision.desired).replicas.values() for replica in group}


def test_old_engine_keeps_its_price_and_its_quality_beside_the_one_that_takes_its_place() -> None:
    fleet = fleet_with(OLD.replica("chat-eu-de-0"), NEW.replica("chat-eu-de-0-r2"))
    offered(fleet, OLD)
    both = offered(fleet, NEW)
    assert (both["chat-eu-de-0"].price, both["chat-eu-de-0-r2"].price) == (Price(0, 0, 0, 1), Price(0, 0, 0, 9))
    assert (both["chat-eu-de-0"].quality, both["chat-eu-de-0-r2"].quality) == (OLD.quality, NEW.quality)
    assert (both["chat-eu-de-0"].quality_score("code"), both["chat-eu-de-0-r2"].quality_score("code")) == (0.1, 0.3)
    assert (both["chat-eu-de-0"].parallel, both["chat-eu-de-0-r2"].parallel) == (2, 32)
    assert {one.unavailable for one in both.values()} == {""}


def test_what_is_no_part_of_the_engine_holds_for_the_old_one_at_once() -> None:
    fleet = fleet_with(OLD.replica("chat-eu-de-0"))
    offered(fleet, OLD)
    (old,) = offered(fleet, NEW).values()
    assert old.in_flight_max == NEW.nanousd


def test_price_that_changes_alone_holds_for_every_replica_at_once() -> None:
    dearer = replace(OLD, number=2, nanousd=5)
    fleet = fleet_with(OLD.replica("chat-eu-de-0"))
    offered(fleet, OLD)
    (old,) = offered(fleet, dearer).values()
    assert (old.price, old.unavailable) == (Price(0, 0, 0, 5), "")
    (old,) = offered(fleet, replace(NEW, number=3)).values()
    assert old.price == Price(0, 0, 0, 5)  # the newest that was declared for that engine


def test_engine_of_another_model_is_not_offered_under_its_successors_name() -> None:
    renamed = replace(NEW, model="better")
    fleet = fleet_with(OLD.replica("chat-eu-de-0"), renamed.replica("chat-eu-de-0-r2"))
    offered(fleet, OLD)
    both = offered(fleet, renamed)
    assert both["chat-eu-de-0"].unavailable == "runs chat, which is to be replaced by better"
    assert both["chat-eu-de-0-r2"].unavailable == ""


@pytest.mark.parametrize(
    ("model", "unavailable"), [("chat", ""), ("other", "runs other, which is to be replaced by chat")]
)
def test_engine_of_a_revision_that_the_router_never_saw_promises_nothing(model: str, unavailable: str) -> None:
    unseen = replace(OLD, model=model)
    (old,) = offered(fleet_with(unseen.replica("chat-eu-de-0")), NEW).values()
    assert (old.quality, old.quality_scores, old.parallel) == (common_pb2.QUALITY_UNSPECIFIED, (), 1)
    assert (old.price, old.unavailable) == (Price(0, 0, 0, 9), unavailable)


def test_router_that_was_started_again_remembers_what_old_engines_cost() -> None:
    before, after = fleet_with(), fleet_with(OLD.replica("chat-eu-de-0"))
    before.declared(OLD.desired)
    before.declared(NEW.desired)
    after.terms.restore(before.terms.entries())
    (old,) = offered(after, NEW).values()
    assert (old.price, old.quality) == (Price(0, 0, 0, 1), OLD.quality)


def test_successor_is_awaited_by_no_second_name() -> None:
    fleet = fleet_with(OLD.replica("chat-eu-de-0-r5"))
    assert set(offered(fleet, replace(OLD, number=9))) == {"chat-eu-de-0-r5"}


def test_replica_that_a_restarted_node_will_start_is_awaited_by_its_revisions_name() -> None:
    fleet = fleet_with(OLD.replica("chat-eu-de-0"))
    fleet.status(node_pb2.Registration(node=NODE, place="eu/de", registered_at=Timestamp(seconds=2)))
    assert set(offered(fleet, NEW)) == {"chat-eu-de-0-r2"}


def test_node_is_told_of_exactly_the_replicas_that_requests_go_to() -> None:
    starting = NEW.replica("chat-eu-de-0-r2")
    starting.state = node_pb2.REPLICA_STATE_LOADING
    fleet = fleet_with(OLD.replica("chat-eu-de-0"), starting)
    assert fleet.usable() == {NODE: frozenset({"chat-eu-de-0"})}
    fleet.require_published(lambda _: False)
    assert fleet.usable() == {NODE: frozenset()}

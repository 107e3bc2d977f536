"""What nodes report, as the core sees it: the view, and the loads beside it."""

import pytest
from google.protobuf import timestamp_pb2

from enginehouse.router import Load, Price, View
from enginehouse.services.router.desired import Desired, read_desired
from enginehouse.services.router.fleet import Fleet
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2
from tests.unit.services_router.build import JURISDICTIONS

HOUR = 3_600_000_000
"""Nano-USD for an hour: a thousand for a second."""


class World:
    """One node with one replica, and how often the view had to be made anew."""

    def __init__(self, price: common_pb2.Price | None = None) -> None:
        self.changes = 0
        self.fleet = Fleet(JURISDICTIONS, ["eu/de"], self._changed)
        self.desired = desired(price or common_pb2.Price(request_nanousd=5))
        self._seconds = 0

    def says(self, **load: float) -> View:
        """The node reports, with a load, and the view is asked for."""
        self._seconds += 1
        self.fleet.status(registration(self._seconds, node_pb2.ReplicaLoad(**load)))  # type: ignore[arg-type]
        return self.fleet.view(self.desired)

    def _changed(self) -> None:
        self.changes += 1


def desired(price: common_pb2.Price, *, deployment: str = "d") -> Desired:
    placement = admin_pb2.Placement(
        node="n", price=price, quality=common_pb2.QUALITY_HIGH, quality_scores={"code": 0.5, "chat": 0.25}
    )
    one = admin_pb2.Deployment(name=f"deployments/{deployment}", model="m", placements=[placement])
    return read_desired({f"deployments.{deployment}": one.SerializeToString()}, JURISDICTIONS)


def registration(seconds: int, load: node_pb2.ReplicaLoad, *, revision: int = 1) -> node_pb2.Registration:
    replica = node_pb2.Replica(
        id="d-n-0",
        deployment="d",
        revision=revision,
        state=node_pb2.REPLICA_STATE_READY,
        address="127.0.0.1:9000",
        served_model="served",
        capabilities=node_pb2.Capabilities(operations=[common_pb2.OPERATION_CHAT], context_tokens_max=100),
        load=load,
    )
    return node_pb2.Registration(
        node="n",
        place="eu/de",
        chip=common_pb2.Chip(chip_class=common_pb2.CHIP_CLASS_GPU, vendor="nvidia", count=2),
        address="127.0.0.1:8000",
        replicas=[replica],
        registered_at=timestamp_pb2.Timestamp(seconds=seconds),
    )


def price_of(view: View) -> Price | None:
    (replica,) = view.replicas["d"]
    return replica.price


def test_a_report_of_loads_changes_the_loads_and_nothing_else() -> None:
    world = World()
    first = world.says(running_requests=1)
    changes = world.changes
    second = world.says(running_requests=7, waiting_requests=2, kv_cache_usage=0.5)
    assert second is first
    assert world.changes == changes
    assert world.fleet.loads["d-n-0"] == Load(running=7, waiting=2)


def test_a_measured_rate_changes_no_view_where_no_price_follows_it() -> None:
    world = World()
    first = world.says()
    assert world.says(prefill_tokens_per_second=100, decode_tokens_per_second=50) is first


def test_an_engine_with_little_to_do_is_not_slow() -> None:
    world = World()
    world.says(running_requests=1, prefill_tokens_per_second=10, decode_tokens_per_second=5)
    assert world.fleet.loads["d-n-0"] == Load(running=1)


def test_an_engine_that_others_wait_for_is_as_fast_as_it_can_be() -> None:
    world = World()
    world.says(running_requests=4, waiting_requests=2, prefill_tokens_per_second=100, decode_tokens_per_second=50)
    world.says(running_requests=1, prefill_tokens_per_second=10, decode_tokens_per_second=5)
    expected = Load(running=1, prefill_tokens_per_second=100, decode_tokens_per_second=50)
    assert world.fleet.loads["d-n-0"] == expected


def test_what_was_measured_on_another_revision_is_forgotten() -> None:
    world = World()
    world.says(waiting_requests=1, decode_tokens_per_second=50)
    world.fleet.status(registration(9, node_pb2.ReplicaLoad(decode_tokens_per_second=5), revision=2))
    assert world.fleet.loads["d-n-0"] == Load()


def test_an_hour_without_rates_has_no_price_until_they_are_measured() -> None:
    world = World(common_pb2.Price(hour_nanousd=HOUR))
    assert price_of(world.says()) is None
    assert price_of(world.says(prefill_tokens_per_second=1000)) is None
    measured = world.says(prefill_tokens_per_second=1000, decode_tokens_per_second=100)
    assert price_of(measured) == Price(10**9, 10**9, 10**10)


def test_an_hourly_price_follows_only_what_is_clearly_faster() -> None:
    world = World(common_pb2.Price(hour_nanousd=HOUR))
    first = world.says(prefill_tokens_per_second=1000, decode_tokens_per_second=100)
    assert world.says(prefill_tokens_per_second=1050, decode_tokens_per_second=90) is first
    faster = world.says(prefill_tokens_per_second=2000, decode_tokens_per_second=100)
    assert price_of(faster) == Price(5 * 10**8, 5 * 10**8, 10**10)
    assert faster.fleet_version != first.fleet_version


def test_declared_rates_need_no_measurement() -> None:
    world = World(
        common_pb2.Price(
            hour_nanousd=HOUR, input_tokens_per_second=1000, output_tokens_per_second=100, request_nanousd=3
        )
    )
    first = world.says()
    assert price_of(first) == Price(10**9, 10**9, 10**10, 3)
    assert world.says(prefill_tokens_per_second=9000, decode_tokens_per_second=9000) is first


def test_a_placement_without_a_price_has_none() -> None:
    one = admin_pb2.Deployment(name="deployments/d", model="m", placements=[admin_pb2.Placement(node="n")])
    world = World()
    world.desired = read_desired({"deployments.d": one.SerializeToString()}, JURISDICTIONS)
    assert price_of(world.says()) is None


def test_the_view_tells_what_the_placement_declares() -> None:
    (replica,) = World().says().replicas["d"]
    assert replica.quality == common_pb2.QUALITY_HIGH
    assert (replica.quality_score("code"), replica.quality_score("chat")) == (0.5, 0.25)
    assert (replica.chip.vendor, replica.chip.count) == ("nvidia", 2)
    assert replica.place is not None
    assert replica.place.path == "de"


def test_a_node_out_of_reach_keeps_its_replicas_as_unavailable() -> None:
    world = World()
    first = world.says()
    world.fleet.unreachable("n")
    second = world.fleet.view(world.desired)
    assert "out of reach" in second.replicas["d"][0].unavailable
    assert second.fleet_version != first.fleet_version
    assert world.says().fleet_version == first.fleet_version


def test_a_suspect_gets_nothing_until_its_node_speaks_again() -> None:
    world = World()
    world.says()
    world.fleet.suspect("127.0.0.1:9000")
    assert world.fleet.view(world.desired).replicas["d"][0].unavailable
    assert not world.says().replicas["d"][0].unavailable


def test_an_address_that_envoy_does_not_know_yet_is_not_used() -> None:
    world = World()
    published: set[str] = set()
    world.fleet.require_published(published.__contains__)
    assert world.says().replicas["d"][0].unavailable == "is not known to Envoy yet"
    published.add("127.0.0.1:9000")
    assert not world.fleet.view(world.desired).replicas["d"][0].unavailable


def test_older_words_change_nothing() -> None:
    world = World()
    world.says(running_requests=1)
    view = world.says(running_requests=2)
    world.fleet.registered([registration(1, node_pb2.ReplicaLoad(running_requests=9))])
    assert world.fleet.view(world.desired) is view
    assert world.fleet.loads["d-n-0"].running == 2


def test_a_changed_desired_state_makes_a_new_view() -> None:
    world = World()
    first = world.says()
    world.desired = desired(common_pb2.Price(request_nanousd=6))
    assert world.fleet.view(world.desired).policy_version != first.policy_version
    assert price_of(world.fleet.view(world.desired)) == Price(0, 0, 0, 6)


def test_the_same_fleet_has_the_same_version_in_every_process() -> None:
    assert World().says().fleet_version == World().says(running_requests=5).fleet_version


def test_a_forgotten_node_leaves_no_load_behind() -> None:
    world = World()
    world.says()
    world.fleet.unreachable("n")
    world.fleet.forget({"n"})
    assert "d-n-0" in world.fleet.loads
    world.fleet.forget(set())
    assert not world.fleet.loads


@pytest.mark.parametrize("place", ["", "nowhere", "eu/us"])
def test_a_label_that_is_no_place_is_nowhere(place: str) -> None:
    world = World()
    unlabelled = registration(1, node_pb2.ReplicaLoad())
    unlabelled.place = place
    world.fleet.status(unlabelled)
    assert world.fleet.view(world.desired).replicas["d"][0].place is None


def test_a_quarantined_deployment_gets_nothing() -> None:
    world = World()
    world.says()
    one = admin_pb2.Deployment()
    one.CopyFrom(world.desired.deployments["d"])
    one.quarantine = "it used more than was held"
    world.desired = read_desired({"deployments.d": one.SerializeToString()}, JURISDICTIONS)
    assert "it used more than was held" in world.fleet.view(world.desired).replicas["d"][0].unavailable

"""The replica's states: every edge of the design, no other, each told once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.contract import InternalError
from enginehouse.engines import (
    ASLEEP,
    DEGRADED,
    DRAINING,
    FAILED,
    LOADING,
    PENDING,
    READY,
    STARTING,
    STOPPED,
    EngineSpec,
    State,
    SystemClock,
    Transition,
)
from enginehouse.engines.state import EDGES, ReplicaRecord
from enginehouse.v1 import admin_pb2, node_pb2

STATES = st.sampled_from(sorted(EDGES))
# Written out by hand from the design, section 8, with the ways back to pending, the early drains, and sleep.
DESIGN: dict[State, set[State]] = {
    PENDING: {STARTING, DRAINING, FAILED},
    STARTING: {LOADING, PENDING, DRAINING, FAILED},
    LOADING: {READY, PENDING, DRAINING, FAILED},
    READY: {DEGRADED, ASLEEP, PENDING, DRAINING, FAILED},
    DEGRADED: {READY, ASLEEP, PENDING, DRAINING, FAILED},
    ASLEEP: {LOADING, PENDING, DRAINING, FAILED},
    DRAINING: {STOPPED, FAILED},
    STOPPED: set(),
    FAILED: {STOPPED},
}


def record_of(told: list[tuple[node_pb2.Replica, Transition]]) -> ReplicaRecord:
    spec = EngineSpec("r-1", "d", 1, "echo", admin_pb2.EngineSettings(), "m")
    declared = node_pb2.Capabilities(context_tokens_max=100)
    return ReplicaRecord(spec, declared, SystemClock(), lambda replica, transition: told.append((replica, transition)))


@given(st.lists(STATES, max_size=40))
def test_only_edges_of_the_design_are_walked_and_each_is_told_once(wishes: list[State]) -> None:
    told: list[tuple[node_pb2.Replica, Transition]] = []
    record = record_of(told)
    expected = [PENDING]
    for wish in wishes:
        if wish in DESIGN[expected[-1]]:
            record.move(wish, "because")
            expected.append(wish)
        else:
            with pytest.raises(InternalError, match="cannot go from"):
                record.move(wish, "because")
        assert record.state == expected[-1]
    assert [transition.to_state for _, transition in told] == expected[1:]
    assert [transition.from_state for _, transition in told] == expected[:-1]
    assert all(replica.state == transition.to_state for replica, transition in told)
    assert record.restarts == expected[1:].count(PENDING)


@given(st.lists(STATES, max_size=40))
def test_replica_without_an_engine_has_no_address_no_load_and_nothing_measured(wishes: list[State]) -> None:
    told: list[tuple[node_pb2.Replica, Transition]] = []
    record = record_of(told)
    for wish in wishes:
        if wish not in EDGES[record.state]:
            continue
        record.move(wish, "because")
        if wish == STARTING:
            record.address = "127.0.0.1:1"
        if wish == READY:
            record.measure(template_tokens=5, message_tokens=2)
            record.observe(node_pb2.ReplicaLoad(running_requests=1))
        snapshot = record.snapshot()
        if wish in (PENDING, STOPPED, FAILED):
            assert (snapshot.address, snapshot.load.running_requests) == ("", 0)
            assert snapshot.capabilities == node_pb2.Capabilities(context_tokens_max=100)


def test_reason_is_kept_while_the_replica_is_not_ready() -> None:
    record = record_of([])
    record.move(STARTING, "starting")
    record.move(LOADING, "loading")
    record.explain("still loading")
    assert record.snapshot().reason == "still loading"
    record.move(READY, "generated a token")
    assert record.snapshot().reason == ""


def test_snapshot_is_a_copy() -> None:
    record = record_of([])
    snapshot = record.snapshot()
    snapshot.capabilities.context_tokens_max = 1
    assert record.snapshot().capabilities.context_tokens_max == 100

"""A decision that is made again on what was recorded of it is the same decision."""

from dataclasses import replace

from hypothesis import given

from enginehouse.router import Moment, PolicySet, Replica, Request, View, by_deployment, decide
from enginehouse.router.replay import decide_again, make_record, outcome_of
from enginehouse.router.snapshot import fleet_to_message, replicas_from_message
from enginehouse.v1 import records_pb2
from tests.support import fleets


def recorded(request: Request, view: View, moment: Moment) -> records_pb2.DecisionRecord:
    """The record of what is decided, as it comes out of the stream."""
    decision = decide(request, view, view.policy(request.principal, request.model), moment)
    record = make_record(request, view, moment, decision, decision_id="d", router="r", decided_at_ms=1)
    return records_pb2.DecisionRecord.FromString(record.SerializeToString())


def restored(view: View) -> View:
    """The view as it comes back from its snapshot."""
    snapshot = records_pb2.FleetSnapshot.FromString(fleet_to_message(view).SerializeToString())
    return View(
        models=view.models,
        replicas=by_deployment(replicas_from_message(snapshot.replicas, fleets.JURISDICTIONS)),
        policies=view.policies,
        limits=view.limits,
        here=tuple(fleets.JURISDICTIONS.place_or_nowhere(label) for label in snapshot.here),
    )


@given(fleets.requests, fleets.views(), fleets.policy_sets, fleets.moments)
def test_replay_is_the_original(request: Request, view: View, policies: PolicySet, moment: Moment) -> None:
    view = replace(view, policies=policies)
    record = recorded(request, view, moment)
    assert outcome_of(decide_again(record, restored(view))) == record.outcome


@given(fleets.fleets)
def test_snapshot_keeps_all_that_a_decision_may_ask_of_a_replica(fleet: tuple[Replica, ...]) -> None:
    view = View(replicas=by_deployment(fleet))
    back = replicas_from_message(fleet_to_message(view).replicas, fleets.JURISDICTIONS)
    assert {one.id: one for one in back} == {one.id: replace(one, address="", node_address="") for one in fleet}

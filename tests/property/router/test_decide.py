"""Rules that hold for every fleet, policy and request."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.router import Decision, Hints, Policy, Request, Residency, View, decide, narrow
from enginehouse.router.bounds import bounds
from enginehouse.router.record import decision_to_message, request_from_message, request_to_message
from enginehouse.v1 import common_pb2
from tests.support import fleets


def decided(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> Decision:
    return decide(request, view, policy, lambda limit: headroom.get(limit, 0), in_flight)


everything = given(fleets.requests, fleets.views(), fleets.policies, fleets.headrooms, fleets.in_flights)


@everything
def test_unlabelled_or_forbidden_places_are_never_chosen(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> None:
    decision = decided(request, view, policy, headroom, in_flight)
    for replica in decision.attempts:
        assert replica.place is not None
        assert all(rule.permits(replica.place) for rule in narrow(policy, request.hints).residency)
        allowed = request.hints.residency
        assert not allowed or allowed & replica.place.within
    if decision.attempts:
        assert all(place is not None and all(r.permits(place) for r in decision.residency) for place in view.here)


@everything
def test_every_attempt_satisfies_every_rule_and_the_hold_covers_it(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> None:
    decision = decided(request, view, policy, headroom, in_flight)
    effective = narrow(policy, request.hints)
    for replica in decision.attempts:
        most = bounds(request, replica)
        assert replica.price is not None
        assert effective.price_nanousd_max is None or most.cost_nanousd <= effective.price_nanousd_max
        assert effective.chips_allowed is None or replica.chip.chip_class in effective.chips_allowed
        assert replica.chip.chip_class not in effective.chips_forbidden
        assert replica.quality >= effective.quality_floor
        assert request.features <= replica.capabilities.features
        assert not replica.unavailable
        assert in_flight.get(replica.id, 0) < replica.in_flight_max
        covering = view.limits_over(request.principal, replica.model, replica.deployment)
        assert {limit.id for limit in covering} == set(decision.holds)
        for limit in covering:
            assert most.amount(limit.unit) <= decision.holds[limit.id] <= headroom.get(limit.id, 0)


@everything
def test_a_decision_is_made_or_refused_and_judges_every_candidate_once(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> None:
    decision = decided(request, view, policy, headroom, in_flight)
    assert bool(decision.attempts) != bool(decision.refused)
    judged = [verdict.replica.id for verdict in decision.verdicts]
    assert len(judged) == len(set(judged))
    if decision.attempts:
        assert sorted(judged) == sorted(replica.id for replica in view.candidates(request.model))
        assert decision.attempts[0].id == judged[0]


@everything
def test_the_same_question_has_the_same_answer_byte_for_byte(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> None:
    messages = [
        decision_to_message(
            decided(again, view, policy, headroom, in_flight),
            decision_id="d",
            request=again,
            view=view,
            held=(),
            decided_at_ms=0,
        ).SerializeToString(deterministic=True)
        for again in (request, request_from_message(request_to_message(request)))
    ]
    assert messages[0] == messages[1]


@everything
def test_hints_only_narrow(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> None:
    def kept(decision: Decision) -> set[str]:
        return {verdict.replica.id for verdict in decision.verdicts if not verdict.dropped_by}

    with_hints = decided(request, view, policy, headroom, in_flight)
    without = decided(replace(request, hints=Hints(session=request.hints.session)), view, policy, headroom, in_flight)
    assert kept(with_hints) <= kept(without)


@everything
def test_attempts_can_stand_in_for_each_other(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int]
) -> None:
    decision = decided(request, view, policy, headroom, in_flight)
    for replica in decision.attempts:
        assert (request.dialect in replica.capabilities.direct_dialects) or decision.lane == common_pb2.LANE_ADAPTER
        assert replica.served_model == decision.attempts[0].served_model
        assert replica.capabilities.stream_usage_members == decision.attempts[0].capabilities.stream_usage_members
    if common_pb2.LANE_ADAPTER in {replica.forced_lane for replica in decision.attempts}:
        assert decision.lane == common_pb2.LANE_ADAPTER


@given(fleets.requests, fleets.views(), fleets.policies, fleets.headrooms, fleets.in_flights, fleets.rules)
def test_another_rule_never_adds_a_candidate(
    request: Request, view: View, policy: Policy, headroom: dict[str, int], in_flight: dict[str, int], rule: Residency
) -> None:
    stricter = replace(policy, residency=(*policy.residency, rule))
    before = decided(request, view, policy, headroom, in_flight)
    after = decided(request, view, stricter, headroom, in_flight)
    kept_before = {verdict.replica.id for verdict in before.verdicts if not verdict.dropped_by}
    assert {verdict.replica.id for verdict in after.verdicts if not verdict.dropped_by} <= kept_before


@given(st.sampled_from(fleets.PLACES), fleets.rules)
def test_a_denied_jurisdiction_keeps_out_everything_inside_it(label: str, rule: Residency) -> None:
    place = fleets.JURISDICTIONS.place(label)
    denying = replace(rule, deny=frozenset({place.path}))
    assert not denying.permits(place)
    assert not denying.permits(None)

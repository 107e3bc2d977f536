"""Rules that hold for every fleet, policy and request."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.router import (
    NOTHING_ALLOWED,
    Hints,
    Moment,
    Policy,
    PolicySet,
    Request,
    Residency,
    TightBudget,
    View,
    combine,
    decide,
    narrow,
    verdicts,
    worth_counting,
)
from enginehouse.router.bounds import bounds, input_tokens_bound, output_tokens_bound
from enginehouse.router.record import decision_to_message, request_from_message, request_to_message
from enginehouse.v1 import common_pb2
from tests.support import fleets

everything = given(fleets.requests, fleets.views(), fleets.policies, fleets.moments)


def kept(request: Request, view: View, policy: Policy, moment: Moment) -> set[str]:
    return {one.replica.id for one in verdicts(request, view, policy, moment) if not one.dropped_by}


@everything
def test_unlabelled_or_forbidden_places_are_never_chosen(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    decision = decide(request, view, policy, moment)
    for replica in decision.attempts:
        assert replica.place is not None
        assert all(rule.permits(replica.place) for rule in narrow(policy, request.hints).residency)
        allowed = request.hints.residency
        assert not allowed or allowed & replica.place.within
    if decision.attempts:
        assert all(place is not None and all(r.permits(place) for r in decision.residency) for place in view.here)


@everything
def test_every_attempt_satisfies_every_rule_and_the_hold_covers_it(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    decision = decide(request, view, policy, moment)
    effective = narrow(policy, request.hints)
    for replica in decision.attempts:
        output = decision.bounds.output_tokens // request.choices if decision.is_clamped else None
        most = bounds(request, replica, output)
        assert replica.price is not None
        assert effective.price_nanousd_max is None or most.cost_nanousd <= effective.price_nanousd_max
        assert all(rule.matches(replica.chip) for rule in effective.chips_required)
        assert not any(rule.matches(replica.chip) for rule in effective.chips_forbidden)
        assert replica.quality >= effective.quality_floor
        assert replica.quality_score(effective.task) >= effective.quality_score_floor
        assert request.features <= replica.capabilities.features
        assert not effective.routes or replica.deployment in {route.deployment for route in effective.routes}
        assert not replica.unavailable
        assert moment.in_flight.get(replica.id, 0) < replica.in_flight_max
        covering = view.limits_over(request.principal, replica.deployment)
        assert {limit.id for limit in covering} == set(decision.holds)
        for limit in covering:
            assert most.amount(limit.unit) <= decision.holds[limit.id] <= moment.headroom(limit.id)


@everything
def test_a_decision_is_made_or_refused_and_every_candidate_is_judged_once(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    decision = decide(request, view, policy, moment)
    assert bool(decision.attempts) != bool(decision.refused)
    judged = [one.replica.id for one in verdicts(request, view, policy, moment)]
    assert len(judged) == len(set(judged))
    if decision.attempts:
        assert sorted(judged) == sorted(replica.id for replica in view.candidates(request.model))
        assert decision.attempts[0].id == judged[0]


@everything
def test_explaining_is_executing(request: Request, view: View, policy: Policy, moment: Moment) -> None:
    decision = decide(request, view, policy, moment)
    told = verdicts(request, view, policy, moment)
    if decision.attempts:
        best = told[0]
        assert (best.replica, best.lane) == (decision.attempts[0], decision.lane)
        assert [one.replica for one in told if one.replica in decision.attempts] == list(decision.attempts)
    else:
        assert all(one.dropped_by for one in told)


@everything
def test_the_same_question_has_the_same_answer_byte_for_byte(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    messages = [
        decision_to_message(
            decide(again, view, policy, moment),
            decision_id="d",
            request=again,
            view=view,
            verdicts=verdicts(again, view, policy, moment),
            decided_at_ms=0,
        ).SerializeToString(deterministic=True)
        for again in (request, request_from_message(request_to_message(request)))
    ]
    assert messages[0] == messages[1]


@everything
def test_hints_only_narrow(request: Request, view: View, policy: Policy, moment: Moment) -> None:
    unhinted = replace(request, hints=Hints(session=request.hints.session))
    assert kept(request, view, policy, moment) <= kept(unhinted, view, policy, moment)


@everything
def test_attempts_can_stand_in_for_each_other(request: Request, view: View, policy: Policy, moment: Moment) -> None:
    decision = decide(request, view, policy, moment)
    for replica in decision.attempts:
        assert (request.dialect in replica.capabilities.direct_dialects) or decision.lane == common_pb2.LANE_ADAPTER
        assert replica.served_model == decision.attempts[0].served_model
        assert replica.capabilities.stream_usage_members == decision.attempts[0].capabilities.stream_usage_members
    if common_pb2.LANE_ADAPTER in {replica.forced_lane for replica in decision.attempts}:
        assert decision.lane == common_pb2.LANE_ADAPTER


@given(fleets.requests, fleets.views(), fleets.policies, fleets.moments, fleets.policies)
def test_another_rule_never_adds_a_candidate(
    request: Request, view: View, policy: Policy, moment: Moment, more: Policy
) -> None:
    constraints = replace(more, on_tight_budget=None, routes=(), task="", weights=None)
    assert kept(request, view, combine(policy, constraints), moment) <= kept(request, view, policy, moment)


@given(fleets.requests, fleets.views(), fleets.moments)
def test_an_alias_escapes_no_rule(request: Request, view: View, moment: Moment) -> None:
    aliased = replace(view, models={**view.models, "alias": view.models[fleets.MODEL]})
    by_alias = replace(request, model="alias")
    policy = aliased.policy(request.principal, "alias")
    direct = aliased.policy(request.principal, fleets.MODEL)
    if aliased.candidates("alias"):
        assert policy == direct
        assert kept(by_alias, aliased, policy, moment) == kept(request, aliased, direct, moment)


@given(fleets.policy_sets, fleets.places)
def test_data_of_an_undeclared_class_may_be_nowhere(policies: PolicySet, place: object) -> None:
    undeclared = any(
        rule.data_class == "undeclared" and rule.when.matches(fleets.PRINCIPAL, frozenset({fleets.MODEL}))
        for rule in policies.rules
    )
    folded = policies.policy(fleets.PRINCIPAL, frozenset({fleets.MODEL}))
    if undeclared:
        assert not all(rule.permits(fleets.JURISDICTIONS.place("de")) for rule in folded.residency)


@everything
def test_clamping_only_lowers_the_output_and_only_when_it_must(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    refusing = replace(policy, on_tight_budget=None)
    clamping = replace(policy, on_tight_budget=TightBudget.CLAMP)
    plain, clamped = decide(request, view, refusing, moment), decide(request, view, clamping, moment)
    assert kept(request, view, refusing, moment) <= kept(request, view, clamping, moment)
    if plain.attempts:
        assert replace(clamped, excluded="") == replace(plain, excluded="")
    if clamped.is_clamped:
        assert plain.refused is not None
        assert clamped.bounds.output_tokens >= request.choices
        for replica in clamped.attempts:
            assert clamped.bounds.output_tokens < output_tokens_bound(request, replica) * request.choices


@everything
def test_what_decided_tells_nothing_that_the_view_remembered(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    first = decide(request, view, policy, moment)
    others = [replace(request, hints=hints) for hints in (Hints(), Hints(residency=frozenset({"eu"})))]
    for other in others:
        decide(other, view, policy, moment)
        decide(other, view, replace(policy, quality_floor=common_pb2.QUALITY_HIGH), moment)
    fresh = replace(view)
    assert decide(request, view, policy, moment) == decide(request, fresh, policy, moment) == first


@everything
def test_a_request_that_is_not_its_session_or_price_is_sifted_with_the_others(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    sifted = view.sift(request, policy)
    other = replace(request, id="another", hints=replace(request.hints, session="another", price_nanousd_max=1))
    assert view.sift(other, policy) is sifted


@given(fleets.requests, fleets.views())
def test_a_stranger_is_allowed_nothing(request: Request, view: View) -> None:
    stranger = replace(request, principal=replace(request.principal, tenant="nobody"))
    policy = view.policy(stranger.principal, stranger.model)
    plenty = Moment(lambda limit: 10**15)
    assert policy == NOTHING_ALLOWED
    assert decide(stranger, view, policy, plenty).refused is not None
    assert kept(stranger, view, policy, plenty) == set()


@given(fleets.requests, fleets.views(), fleets.policies, fleets.moments, st.integers(1, 5000))
def test_a_smaller_prompt_never_loses_a_candidate(
    request: Request, view: View, policy: Policy, moment: Moment, tokens: int
) -> None:
    exact = replace(request, prompt_tokens=())
    counts = tuple(
        (deployment, min(tokens, input_tokens_bound(exact, group[0])))
        for deployment, group in view.replicas.items()
        if len({replica.capabilities for replica in group}) == 1
    )
    refusing = replace(policy, on_tight_budget=None)
    counted = replace(request, prompt_tokens=counts)
    assert kept(exact, view, refusing, moment) <= kept(counted, view, refusing, moment)


@everything
def test_only_those_who_may_see_a_prompt_are_worth_asking_to_count_it(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    asked = worth_counting(request, view, policy, moment)
    rules = narrow(policy, request.hints).residency
    for replica in asked:
        assert replica.place is not None
        assert all(rule.permits(replica.place) for rule in rules)
        assert not replica.unavailable
        assert replica.price is not None
    if asked:
        assert all(place is not None and all(rule.permits(place) for rule in rules) for place in view.here)
    assert len({replica.deployment for replica in asked}) == len(asked)
    assert not {replica.deployment for replica in asked} & {deployment for deployment, _ in request.prompt_tokens}


@everything
def test_affinity_and_load_move_candidates_and_never_add_or_drop_one(
    request: Request, view: View, policy: Policy, moment: Moment
) -> None:
    bare = replace(moment, loads={}, prefix_matches={})
    assert kept(request, view, policy, moment) == kept(request, view, policy, bare)


@given(st.sampled_from(fleets.PLACES), fleets.rules)
def test_a_denied_jurisdiction_keeps_out_everything_inside_it(label: str, rule: Residency) -> None:
    place = fleets.JURISDICTIONS.place(label)
    denying = replace(rule, deny=frozenset({place.path}))
    assert not denying.permits(place)
    assert not denying.permits(None)

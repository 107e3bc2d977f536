"""How a decision is found: what is leased, counted, and cut short before a request is refused."""

import asyncio
import json
from dataclasses import replace

import pytest

from enginehouse.contract import DependencyError, Reason
from enginehouse.router import Load, Policy, PolicyRule, Residency, TightBudget, View, When, decide
from enginehouse.services.router.affinity import BLOCK_BYTES
from enginehouse.services.router.deliberation import Asked
from enginehouse.services.router.prompt import Prompt
from enginehouse.v1 import common_pb2
from tests.unit.engines.virtual import run_virtual
from tests.unit.services_router.build import LIMIT, Shares, Tokenizers, deliberation, replica, request, view

CLAMPING = Policy(on_tight_budget=TightBudget.CLAMP)


def prompt(text: str = "Hi", **members: object) -> Prompt:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **members}).encode()
    return Prompt(common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_CHAT, text.encode(), body)


def ask(of: View, shares: Shares, tokenizers: Tokenizers | None = None, **size: int) -> Asked:
    """Decides about a chat, its prompt at hand."""

    async def scenario() -> Asked:
        deciding = deliberation(of, shares, tokenizers=tokenizers)
        return await deciding.decide(request(**size), prompt())

    return run_virtual(scenario())


def test_a_request_that_fits_asks_the_ledger_nothing() -> None:
    shares = Shares(own=200)
    assert ask(view(), shares).decision.holds == {LIMIT: 200}
    assert shares.asked == []


def test_what_is_missing_is_leased_and_no_more() -> None:
    shares = Shares(own=50, ledger=1000)
    assert ask(view(), shares).decision.holds == {LIMIT: 200}
    assert shares.asked == [{LIMIT: 150}]


def test_a_refusal_tells_what_is_left_here_and_at_the_ledger() -> None:
    asked = ask(view(), Shares(own=50, ledger=100))
    assert asked.decision.refused is not None
    assert asked.decision.refused.reason is Reason.RATE_LIMITED
    assert [need.headroom for need in asked.decision.refused.needs] == [150]


def test_an_unreachable_ledger_is_no_refusal() -> None:
    class Away(Shares):
        async def acquire(self, needs: object) -> None:
            raise DependencyError("control does not answer", Reason.CONTROL_UNAVAILABLE)

    with pytest.raises(DependencyError):
        ask(view(), Away())


def test_clamping_takes_all_that_is_left_here_and_at_the_ledger() -> None:
    shares = Shares(own=50, ledger=90)
    decision = ask(view(policy=CLAMPING), shares).decision
    assert decision.is_clamped
    assert decision.bounds.output_tokens == 40
    assert decision.holds == {LIMIT: 140}
    assert shares.own[LIMIT] == 140


def test_a_small_share_clamps_nothing_while_the_ledger_has_enough() -> None:
    decision = ask(view(policy=CLAMPING), Shares(own=150, ledger=1000)).decision
    assert not decision.is_clamped
    assert decision.holds == {LIMIT: 200}


def test_clamping_leaves_at_least_one_token() -> None:
    assert ask(view(policy=CLAMPING), Shares(own=100, ledger=1)).decision.bounds.output_tokens == 1
    assert ask(view(policy=CLAMPING), Shares(own=100)).decision.refused is not None


def test_clamping_counts_every_choice() -> None:
    async def scenario() -> Asked:
        three = replace(request(), choices=3)
        return await deliberation(view(policy=CLAMPING), Shares(own=160)).decide(three)

    assert run_virtual(scenario()).decision.bounds.output_tokens == 60


def test_a_clamped_decision_is_what_the_core_decides_on_the_same() -> None:
    asked = ask(view(policy=CLAMPING), Shares(own=50, ledger=90))
    assert decide(asked.request, asked.view, asked.policy, asked.moment) == asked.decision


def test_an_exact_count_admits_what_its_bytes_would_not() -> None:
    tokenizers = Tokenizers({"d": 20})
    asked = ask(view(), Shares(own=100, ledger=50), tokenizers)
    assert asked.decision.holds == {LIMIT: 120}
    assert asked.request.prompt_tokens == (("d", 20),)
    assert tokenizers.asked == ["d-n0-0"]


def test_nothing_is_counted_while_the_bytes_fit() -> None:
    tokenizers = Tokenizers({"d": 20})
    ask(view(), Shares(own=50, ledger=1000), tokenizers)
    assert tokenizers.asked == []


def test_nothing_is_counted_when_the_output_alone_is_too_much() -> None:
    tokenizers = Tokenizers({"d": 20})
    assert ask(view(), Shares(own=100), tokenizers).decision.refused is not None
    assert tokenizers.asked == []


def test_an_exact_count_that_does_not_fit_either_is_refused() -> None:
    asked = ask(view(), Shares(own=110), Tokenizers({"d": 20}))
    assert asked.decision.refused is not None
    assert [(need.amount, need.headroom) for need in asked.decision.refused.needs] == [(120, 110)]


def test_a_prompt_that_nobody_counted_is_refused_as_before() -> None:
    tokenizers = Tokenizers()
    assert ask(view(), Shares(own=150), tokenizers).decision.refused is not None
    assert tokenizers.asked == ["d-n0-0"]


def test_an_exact_count_leaves_more_of_a_clamped_output() -> None:
    decision = ask(view(policy=CLAMPING), Shares(own=110), Tokenizers({"d": 20})).decision
    assert decision.is_clamped
    assert decision.bounds.output_tokens == 90


def test_a_highest_price_is_checked_against_the_exact_count_too() -> None:
    capped = Policy(price_nanousd_max=150)
    asked = ask(view([replica(price=10**6)], capped), Shares(own=1000), Tokenizers({"d": 20}))
    assert asked.decision.bounds.cost_nanousd == 120


def test_one_replica_of_each_deployment_counts() -> None:
    tokenizers = Tokenizers({"d": 30, "e": 20})
    asked = ask(view([replica(0), replica(1), replica(2, deployment="e")]), Shares(own=120), tokenizers)
    assert tokenizers.asked == ["d-n0-0", "e-n2-0"]
    assert [one.deployment for one in asked.decision.attempts] == ["e"]


def test_a_prompt_is_never_shown_to_a_node_that_may_not_see_it() -> None:
    tokenizers = Tokenizers({"d": 20, "us": 20, "none": 20})
    fleet = [
        replica(0),
        replica(1, deployment="us", place="us/va"),
        replica(2, deployment="none", place=None),
    ]
    europe = Policy(residency=(Residency(allow=frozenset({"eu"})),))
    ask(view(fleet, europe), Shares(own=150), tokenizers)
    assert tokenizers.asked == ["d-n0-0"]


def test_a_prompt_that_may_not_even_be_here_is_not_shown_to_anybody() -> None:
    tokenizers = Tokenizers({"d": 20})
    swiss = Policy(residency=(Residency(allow=frozenset({"ch"})),))
    asked = ask(view([replica(place="ch")], swiss), Shares(own=150), tokenizers)
    assert asked.decision.refused is not None
    assert asked.decision.refused.reason is Reason.RESIDENCY_UNSATISFIABLE
    assert tokenizers.asked == []


def test_a_stranger_is_allowed_nothing() -> None:
    known = view(policy=Policy())
    without = replace(known, policies=replace(known.policies, tenants=frozenset()))
    asked = ask(without, Shares(own=1000))
    assert asked.decision.refused is not None
    assert asked.decision.refused.reason is Reason.MODEL_NOT_FOUND


def test_a_prompt_goes_where_its_beginning_was_read_before() -> None:
    text = "x" * 3 * BLOCK_BYTES
    fleet = [replica(number) for number in range(8)]

    async def scenario() -> None:
        deciding = deliberation(view(fleet), Shares(own=10**6))
        first = await deciding.decide(request(0), prompt(text))
        deciding.admitted(first)
        for number in range(1, 20):
            again = await deciding.decide(request(number), prompt(text + "y" * number))
            assert again.decision.attempts[0] == first.decision.attempts[0]
            assert (again.request.prefix_blocks, len(again.blocks)) == (3, 3)
        others = [await deciding.decide(request(number), prompt("z" * 900)) for number in range(100, 120)]
        assert len({one.decision.attempts[0].id for one in others}) > 1

    run_virtual(scenario())


def test_affinity_never_outweighs_a_rule() -> None:
    text = "x" * 3 * BLOCK_BYTES

    async def scenario() -> None:
        fleet = [replica(0), replica(1, place="us/va")]
        deciding = deliberation(view(fleet), Shares(own=10**6))
        seen = await deciding.decide(request(0), prompt(text))
        there = replace(seen, decision=replace(seen.decision, attempts=(fleet[1],)))
        deciding.admitted(there)
        europe = Policy(residency=(Residency(allow=frozenset({"eu"})),))
        deciding.view = replace(
            deciding.view,
            policies=replace(deciding.view.policies, rules=(PolicyRule("eu", When(), europe),)),
        )
        again = await deciding.decide(request(1), prompt(text))
        assert again.decision.attempts == (fleet[0],)

    run_virtual(scenario())


def test_a_replica_with_a_line_before_it_is_passed_by() -> None:
    async def scenario() -> None:
        busy = {"d-n0-0": Load(running=9, waiting=5)}
        deciding = deliberation(view([replica(0), replica(1)]), Shares(own=10**6), loads=busy)
        for number in range(10):
            asked = await deciding.decide(request(number))
            assert asked.decision.attempts[0].id == "d-n1-0"

    run_virtual(scenario())


def test_of_many_at_once_no_more_are_admitted_than_there_is_room_for() -> None:
    async def scenario() -> None:
        shares = Shares(own=0, ledger=1000)
        deciding = deliberation(view(), shares)
        admitted = 0

        async def one(number: int) -> None:
            nonlocal admitted
            asked = await deciding.decide(request(number))
            if asked.decision.refused is None:
                shares.own[LIMIT] -= asked.decision.holds[LIMIT]
                assert shares.own[LIMIT] >= 0
                admitted += 1

        await asyncio.gather(*(one(number) for number in range(20)))
        assert admitted == 5

    run_virtual(scenario())

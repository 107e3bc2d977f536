"""Requests that wait their turn, on virtual time."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from enginehouse.contract import Reason
from enginehouse.router import Need, Policy, Request, TightBudget
from enginehouse.services.router.deliberation import Asked, Deliberation
from enginehouse.services.router.lease_groups import Exhausted
from enginehouse.services.router.waiting import WaitingRoom
from tests.unit.engines.virtual import run_virtual
from tests.unit.services_router.build import LIMIT, RETRY_AFTER_S, Shares, deliberation, now_ms, request, view

WAITING = Policy(on_tight_budget=TightBudget.WAIT, wait_ms=1000)


async def settle_down() -> None:
    """Lets every task go as far as it can without time."""
    for _ in range(20):
        await asyncio.sleep(0)


def is_refused(asked: Asked) -> bool:
    return asked.decision.refused is not None


async def admit(deciding: Deliberation, shares: Shares, one: Request) -> Asked:
    """Decides, and holds with nothing in between, as an admission does."""
    asked = await deciding.decide_in_turn(one)
    if not is_refused(asked):
        shares.own[LIMIT] -= asked.decision.holds[LIMIT]
    return asked


def give_back(shares: Shares, room: WaitingRoom, amount: int) -> None:
    shares.own[LIMIT] += amount
    room.changed([LIMIT])


def test_a_request_is_admitted_once_another_has_given_back() -> None:
    async def scenario() -> None:
        shares, room = Shares(), WaitingRoom()
        deciding = asyncio.create_task(deliberation(view(policy=WAITING), shares, room=room).decide_in_turn(request()))
        await settle_down()
        assert not deciding.done()
        give_back(shares, room, 200)
        assert not is_refused(await deciding)
        assert now_ms() == 0
        assert room.waited_for([LIMIT]) is None

    run_virtual(scenario())


def test_a_request_is_admitted_once_the_ledger_has_more_of_which_nobody_tells() -> None:
    async def scenario() -> None:
        shares = Shares()
        deciding = asyncio.create_task(deliberation(view(policy=WAITING), shares).decide_in_turn(request()))
        await asyncio.sleep(0.5)
        assert not deciding.done()
        shares.ledger[LIMIT] = 200
        assert not is_refused(await deciding)
        assert now_ms() < 1000

    run_virtual(scenario())


def test_the_refusal_comes_when_the_policys_time_is_over() -> None:
    async def scenario() -> None:
        asked = await deliberation(view(policy=WAITING), Shares(), wait_ms_max=5000).decide_in_turn(request())
        assert asked.decision.refused is not None
        assert asked.decision.refused.reason is Reason.RATE_LIMITED
        assert asked.decision.refused.retry_after_s == RETRY_AFTER_S
        assert now_ms() == 1000

    run_virtual(scenario())


def test_whoever_asks_is_answered_before_its_own_deadline() -> None:
    async def scenario() -> None:
        asked = await deliberation(view(policy=WAITING), Shares(), wait_ms_max=300).decide_in_turn(request())
        assert is_refused(asked)
        assert now_ms() == 300

    run_virtual(scenario())


def test_without_the_policy_nobody_waits() -> None:
    async def scenario() -> None:
        assert is_refused(await deliberation(view(), Shares()).decide_in_turn(request()))
        assert now_ms() == 0

    run_virtual(scenario())


def test_an_explanation_waits_for_nobody() -> None:
    async def scenario() -> None:
        assert is_refused(await deliberation(view(policy=WAITING), Shares()).decide(request()))
        assert now_ms() == 0

    run_virtual(scenario())


def test_requests_are_admitted_in_the_order_in_which_they_came() -> None:
    async def scenario() -> None:
        shares, room = Shares(), WaitingRoom()
        deciding = deliberation(view(policy=WAITING), shares, room=room)
        admitted: list[int] = []

        async def one(number: int, output: int) -> None:
            await admit(deciding, shares, request(number, output=output))
            admitted.append(number)

        tasks = []
        for number, output in enumerate((300, 10, 10)):
            tasks.append(asyncio.create_task(one(number, output)))
            await settle_down()
        give_back(shares, room, 399)  # enough for the second and the third, who are not first
        await settle_down()
        assert admitted == []
        give_back(shares, room, 1 + 2 * 110)
        await asyncio.gather(*tasks)
        assert admitted == [0, 1, 2]
        assert shares.own[LIMIT] == 0

    run_virtual(scenario())


def test_whoever_comes_later_does_not_overtake_those_who_wait() -> None:
    async def scenario() -> None:
        shares, room = Shares(own=150), WaitingRoom()
        deciding = deliberation(view(policy=WAITING), shares, room=room)
        large = asyncio.create_task(admit(deciding, shares, request(0, output=500)))
        await settle_down()
        small = asyncio.create_task(admit(deciding, shares, request(1, output=20)))
        await settle_down()
        assert not small.done()  # although it would fit
        give_back(shares, room, 450)
        assert not is_refused(await large)
        assert is_refused(await small)

    run_virtual(scenario())


def test_whoever_waited_in_vain_makes_room_for_the_next() -> None:
    async def scenario() -> None:
        shares, room = Shares(own=150), WaitingRoom()
        deciding = deliberation(view(policy=WAITING), shares, room=room)
        large = asyncio.create_task(deciding.decide_in_turn(request(0, output=500)))
        await asyncio.sleep(0.1)
        small = asyncio.create_task(deciding.decide_in_turn(request(1, output=20)))
        assert is_refused(await large)
        assert not is_refused(await small)
        assert now_ms() == 1000

    run_virtual(scenario())


def test_only_so_many_wait_and_the_next_is_refused_at_once() -> None:
    async def scenario() -> None:
        shares, room = Shares(), WaitingRoom(waiters_max=2)
        deciding = deliberation(view(policy=WAITING), shares, room=room)
        waiting = [asyncio.create_task(deciding.decide_in_turn(request(number))) for number in range(2)]
        await settle_down()
        assert is_refused(await deciding.decide_in_turn(request(2)))
        assert now_ms() == 0
        assert all(is_refused(asked) for asked in await asyncio.gather(*waiting))

    run_virtual(scenario())


def test_whoever_gives_up_leaves_the_line() -> None:
    async def scenario() -> None:
        shares, room = Shares(), WaitingRoom()
        deciding = deliberation(view(policy=WAITING), shares, room=room)
        first = asyncio.create_task(deciding.decide_in_turn(request(0)))
        await settle_down()
        second = asyncio.create_task(deciding.decide_in_turn(request(1)))
        await settle_down()
        first.cancel()
        give_back(shares, room, 200)
        assert not is_refused(await second)
        assert room.waited_for([LIMIT]) is None

    run_virtual(scenario())


def test_a_decision_that_was_waited_for_is_made_on_the_newest_view() -> None:
    async def scenario() -> None:
        shares, room = Shares(), WaitingRoom()
        deciding: Deliberation = deliberation(view(policy=WAITING), shares, room=room)
        waiting = asyncio.create_task(deciding.decide_in_turn(request()))
        await settle_down()
        deciding.view = replace(deciding.view, fleet_version="new")
        give_back(shares, room, 200)
        assert (await waiting).view.fleet_version == "new"

    run_virtual(scenario())


def test_a_ledger_that_takes_its_time_does_not_make_anybody_late() -> None:
    class Slow(Shares):
        async def acquire(self, needs: Sequence[Need]) -> Exhausted | None:
            if now_ms() > 0:
                await asyncio.sleep(3)
            return await super().acquire(needs)

    async def scenario() -> None:
        asked = await deliberation(view(policy=WAITING), Slow()).decide_in_turn(request())
        assert is_refused(asked)
        assert now_ms() == 1000

    run_virtual(scenario())


def test_whoever_may_not_wait_for_the_ledger_any_longer_still_takes_what_is_there() -> None:
    class Slow(Shares):
        async def acquire(self, needs: Sequence[Need]) -> Exhausted | None:
            if now_ms() > 0:
                await asyncio.sleep(3)
            return await super().acquire(needs)

    async def scenario() -> None:
        shares = Slow()
        deciding = asyncio.create_task(deliberation(view(policy=WAITING), shares).decide_in_turn(request()))
        await asyncio.sleep(0.5)
        shares.own[LIMIT] = 200
        asked = await deciding
        assert now_ms() == 1000
        assert asked.decision.holds == {LIMIT: 200}

    run_virtual(scenario())

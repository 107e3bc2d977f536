"""Routers' allowances against a real ledger: lost answers, replaced processes, recalls, windows ahead."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from enginehouse.contract import DependencyError, InternalError, Reason
from enginehouse.router import Need
from enginehouse.services.access_log import AccessRecord
from enginehouse.services.control import Resolved
from enginehouse.services.control.schema import AccessLogRow, ChargeRow, LoggedChargeRow
from enginehouse.services.router import ledger_client
from enginehouse.services.router.allowances import Allowances, Exhausted
from enginehouse.services.router.handover import Handover
from enginehouse.services.router.settlement import Settler
from enginehouse.services.server import GrpcServer, Listen
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2, router_pb2_grpc
from tests.integration.control.access_log_suite import PRICE, count
from tests.integration.control.support import Harness, charge, error_of, running
from tests.support.waiting import until, until_async

MARGIN_MS = 3000
NEED = 10
UNANSWERED = grpc.aio.AioRpcError(
    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="the answer was lost"
)


@dataclass
class LossyLedger:
    """A ledger whose answers to some calls are lost, after it has done what it was asked."""

    ledger: Any
    lose: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[str, Message]] = field(default_factory=list)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        call = getattr(self.ledger, method)
        if method == "WatchRecalls":
            return call  # type: ignore[no-any-return]

        async def ask(request: Message, **options: float) -> Message:
            self.calls.append((method, request))
            answer: Message = await call(request, **options)
            if self.lose.get(method, 0):
                self.lose[method] -= 1
                raise UNANSWERED
            return answer

        return ask


@dataclass
class Desk:
    """One router: it admits by holding `NEED` of each limit, as an admission does."""

    allowances: Allowances
    held: list[str] = field(default_factory=list)
    refused: list[Exhausted] = field(default_factory=list)

    async def admit(self, request_id: str, *limits: str, amount: int = NEED) -> bool:
        needed = limits or ("budget",)
        for _ in range(50):
            needs = [Need(limit, amount, self.allowances.headroom(limit)) for limit in needed]
            if all(need.headroom >= amount for need in needs):
                self.allowances.hold(request_id, dict.fromkeys(needed, amount))
                self.held.append(request_id)
                return True
            exhausted = await self.allowances.acquire(needs)
            if exhausted is not None:
                self.refused.append(exhausted)
                return False
        raise AssertionError("asked for ever")


@asynccontextmanager
async def desks(mesh: Harness, *names: str, ledger: LossyLedger | None = None) -> AsyncIterator[list[Desk]]:
    """Routers that have enrolled and listen for recalls."""
    async with AsyncExitStack() as stack:
        every = []
        for name in names:
            allowances = Allowances(
                cast("Any", ledger or mesh.ledger),
                router=name,
                boot_ms=mesh.clock.steady_ms,
                margin_ms=MARGIN_MS,
                tick_s=0.01,
            )
            await allowances.start()
            stack.push_async_callback(allowances.stop)
            every.append(Desk(allowances))
        recalls = mesh.control.ledger._recalls
        await until(lambda: all(desk.allowances.fence in recalls._listeners for desk in every), "routers listen")
        yield every


@contextmanager
def failures() -> Iterator[list[BaseException]]:
    """What the event loop is told of background tasks that failed."""
    failed: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
    yield failed
    loop.set_exception_handler(None)


async def free(desk: Desk, limit: str = "budget") -> int:
    return sum(share.free for share in desk.allowances.book.shares_of(limit))


class AllowancesSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_an_acquisition_whose_answer_was_lost_is_asked_again_and_taken_once(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            lossy = LossyLedger(mesh.ledger, {"AcquireAllowances": 1})
            async with desks(mesh, "r1", ledger=lossy) as (desk,):
                assert await desk.admit("q1")
                assert len(set(_ids(lossy, "AcquireAllowances"))) == 1
                assert (await mesh.status("budget")).allotted == await free(desk) + NEED == 50

    async def test_what_was_leased_behind_lost_answers_comes_into_the_book_later(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            lossy = LossyLedger(mesh.ledger, {"AcquireAllowances": 2})
            async with desks(mesh, "r1", ledger=lossy) as (desk,):
                with pytest.raises(DependencyError) as caught:
                    await desk.admit("q1")
                assert caught.value.reason is Reason.CONTROL_UNAVAILABLE
                assert (await mesh.status("budget")).allotted == 50
                # nobody uses it, so it is given back as soon as it is known
                await until_async(lambda: _is_allotted(mesh, 0), "nothing is allotted")

    async def test_a_release_whose_answer_was_lost_gives_back_once(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            lossy = LossyLedger(mesh.ledger, {"ReleaseAllowances": 2})
            async with desks(mesh, "r1", ledger=lossy) as (desk,):
                assert await desk.admit("q1")
                mesh.clock.advance(31)
                await until(lambda: _ids(lossy, "ReleaseAllowances").count(_first(lossy)) == 3, "three attempts")
                assert set(_ids(lossy, "ReleaseAllowances")) == {_first(lossy)}
                await until_async(lambda: _is_allotted(mesh, NEED), "only the hold is allotted")
                await mesh.check_invariants()

    async def test_the_same_release_at_once_gives_back_once(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            part = ledger_pb2.AllowanceReturn(allowance=allowance.id, amount=30)
            await asyncio.gather(*(router.release(part, release_id="once") for _ in range(8)))
            assert (await mesh.status("budget")).allotted == 70
            request = ledger_pb2.ReleaseAllowancesRequest(router="r1", fence=router.fence, returns=[part])
            assert (await error_of(mesh.ledger.ReleaseAllowances(request))).reason is Reason.MALFORMED_REQUEST

    async def test_a_replaced_process_holds_nothing_more_and_one_of_its_tasks_fails(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            with failures() as failed:
                async with desks(mesh, "r1") as (desk,):
                    assert await desk.admit("q1")
                    successor = await mesh.router("r1")
                    with pytest.raises(DependencyError):
                        await desk.admit("q2", amount=500)
                    await until(lambda: failed, "a background task fails")
                    assert desk.allowances.headroom("budget") == 0
                    with pytest.raises(InternalError):
                        desk.allowances.hold("q3", {"budget": 1})
                    with pytest.raises(DependencyError):
                        await desk.admit("q4")
                    desk.allowances.settle("q1", {"budget": 7})
                assert [type(error) for error in failed] == [InternalError]
                assert (await mesh.status("budget")).spent == 7
                assert not (await successor.acquire({"budget": (1, 1)})).shortages

    async def test_a_router_that_slept_past_its_term_holds_nothing_on_the_old_allowance(
        self, database_url: str
    ) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            async with desks(mesh, "r1") as (desk,):
                assert await desk.admit("q1")
                await desk.allowances._background.stop()  # the process is stopped, and control goes on
                mesh.clock.advance(900 - MARGIN_MS / 1000 - 0.001)
                assert desk.allowances.headroom("budget") == 40
                mesh.clock.advance(0.001)
                assert desk.allowances.headroom("budget") == 0
                with pytest.raises(InternalError):
                    desk.allowances.hold("q2", {"budget": 1})

    async def test_what_others_do_not_use_is_recalled_before_anybody_is_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 20 * NEED)
            async with desks(mesh, "r1", "r2", "r3") as (first, second, third):
                # each has leased more than it holds, and together they have leased everything
                for desk in (first, second):
                    await desk.allowances.acquire([Need("budget", 9 * NEED, 0)])
                    assert await desk.admit(f"{id(desk)}")
                assert (await mesh.status("budget")).allotted >= 18 * NEED
                for number in range(18):
                    assert await third.admit(f"q{number}"), number
                assert not await third.admit("one too many")
                assert third.refused[0].left == 0
                await mesh.check_invariants()

    @pytest.mark.parametrize("used", [NEED, 3])
    async def test_with_budget_left_for_the_exact_count_nobody_is_refused_by_any_of_three_routers(
        self, database_url: str, used: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_client, "_ACQUIRE_TIMEOUT_S", 30.0)  # it is about refusals, not about a busy machine
        fitting = 60
        async with running(database_url) as mesh:
            await mesh.limit("budget", fitting * used + NEED - used)
            await mesh.limit("requests", 1000, ledger_pb2.LIMIT_UNIT_REQUESTS)
            async with desks(mesh, "r1", "r2", "r3") as every:

                async def serve(desk: Desk, numbers: range) -> None:
                    for number in numbers:
                        assert await desk.admit(f"q{number}", "budget", "requests"), number
                        desk.allowances.settle(f"q{number}", {"budget": used, "requests": 1})
                        await mesh_turn.acquire()
                        mesh_turn.release()

                mesh_turn = asyncio.Lock()
                if used == NEED:  # all at once: every hold is a charge
                    await asyncio.gather(*(serve(desk, range(n, fitting, 3)) for n, desk in enumerate(every)))
                else:  # one after the other: what is not used must come back, from whichever router
                    for number in range(fitting):
                        await serve(every[number % 3], range(number, number + 1))
                assert not await every[0].admit("one too many")
                await until_async(lambda: _is_spent(mesh, fitting * used), "everything is charged")
                await mesh.check_invariants()

    async def test_a_router_that_does_not_answer_a_recall_delays_one_refusal(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 100)
            mute = await mesh.router("mute")
            await mute.take("budget", 95)
            stream = mesh.ledger.WatchRecalls(ledger_pb2.WatchRecallsRequest(router="mute", fence=mute.fence))
            recalls = mesh.control.ledger._recalls
            await until(lambda: mute.fence in recalls._listeners, "it listens")
            asker = await mesh.router("r1")
            assert (await asker.acquire({"budget": (NEED, NEED)})).shortages[0].amount_left == 5
            assert recalls.who_answers(asker.fence) == set()
            assert (await asker.acquire({"budget": (NEED, NEED)})).shortages
            message = await anext(aiter(stream))
            assert [part.limit for part in message.limits] == ["budget"]
            await mute.release(recalls=[message.recall])
            assert recalls.who_answers(asker.fence) == {mute.fence}
            stream.cancel()

    async def test_only_the_newest_process_of_a_router_is_told_of_recalls(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            old = await mesh.router("r1")
            await mesh.router("r1")
            request = ledger_pb2.WatchRecallsRequest(router="r1", fence=old.fence)

            async def listen() -> None:
                async for _ in mesh.ledger.WatchRecalls(request):
                    pass

            assert (await error_of(listen())).reason is Reason.STALE_FENCE

    async def test_what_lies_idle_is_given_back(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            async with desks(mesh, "r1") as (desk,):
                assert await desk.admit("q1")
                assert (await mesh.status("budget")).allotted == 50
                mesh.clock.advance(31)
                await until_async(lambda: _is_allotted(mesh, NEED), "only the hold is allotted")

    async def test_more_is_leased_before_the_last_chunk_is_used_up(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 4000)
            async with desks(mesh, "r1") as (desk,):
                for number in range(16):
                    assert await desk.admit(f"q{number}")
                await until(lambda: desk.allowances.headroom("budget") >= 190, "another chunk is there")

    async def test_windows_begin_without_control_when_they_begin_within_the_term(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("rate", 100, ledger_pb2.LIMIT_UNIT_REQUESTS, ledger_pb2.LIMIT_WINDOW_MINUTE)
            lossy = LossyLedger(mesh.ledger)
            async with desks(mesh, "r1", ledger=lossy) as (desk,):
                for number in range(8):
                    assert await desk.admit(f"q{number}", "rate", amount=1)
                await until(lambda: len(desk.allowances.book.shares_of("rate")) == 16, "every window has a share")
                assert len({row.window_start_ms for row in await mesh.accounts()}) == 16
                lossy.lose = dict.fromkeys(("AcquireAllowances", "SettleCharges", "ReleaseAllowances"), 1_000_000)
                asked = len(_ids(lossy, "AcquireAllowances"))
                for window in range(1, 14):
                    mesh.clock.advance(60)
                    for number in range(5):
                        assert desk.allowances.headroom("rate") >= 1, window
                        desk.allowances.hold(f"w{window}.{number}", {"rate": 1})
                starts = [held.window_start_ms for held in desk.allowances.book.holds_of("w13.0")]
                assert starts[0] <= mesh.clock.wall < starts[0] + 60_000
                lossy.lose = {}
                assert asked >= 1
                await mesh.check_invariants()

    async def test_no_window_is_held_in_before_it_begins(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("rate", 100, ledger_pb2.LIMIT_UNIT_REQUESTS, ledger_pb2.LIMIT_WINDOW_MINUTE)
            async with desks(mesh, "r1") as (desk,):
                assert await desk.admit("q1", "rate", amount=1)
                await until(lambda: len(desk.allowances.book.shares_of("rate")) == 16, "every window has a share")
                windows = [share.window_start_ms for share in desk.allowances.book.shares_of("rate")]
                current = desk.allowances.book.usable("rate", mesh.clock.steady_ms())
                assert current is not None
                assert current.window_start_ms == min(windows) <= mesh.clock.wall

    async def test_a_limit_that_was_replaced_is_not_held_in_any_more(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            first = await mesh.limit("budget", 1000)
            async with desks(mesh, "r1") as (desk,):
                assert await desk.admit("q1")
                await mesh.admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name="limits/budget"))
                second = await mesh.limit("budget", 100)
                assert second.uid > first.uid
                desk.allowances.retain({"budget": first.uid})
                assert desk.allowances.headroom("budget") == 40
                desk.allowances.retain({"budget": second.uid})
                assert desk.allowances.headroom("budget") == 0
                assert await desk.admit("q2")
                assert (await mesh.status("budget")).allotted == NEED
                desk.allowances.retain({})
                assert desk.allowances.headroom("budget") == 0
                desk.allowances.settle("q1", {"budget": 5})
                desk.allowances.settle("q2", {"budget": 6})
                await until_async(lambda: _is_spent(mesh, 6), "the second is charged")
                await until_async(lambda: _has_charges(mesh, 2), "the first is kept")

    async def test_a_charge_that_is_refused_holds_up_no_other(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            foreign = await (await mesh.router("r2")).take("budget", 10)
            async with desks(mesh, "r1") as (desk,):
                desk.allowances.book.add(
                    share=foreign.id, limit="wrong", window_start_ms=0, amount=10, usable_until_ms=1 << 60
                )
                desk.allowances.hold("bad", {"wrong": 5})
                desk.allowances.settle("bad", {"wrong": 5})
                for number in range(5):
                    assert await desk.admit(f"q{number}")
                    desk.allowances.settle(f"q{number}", {"budget": 2})
                await until_async(lambda: _is_spent(mesh, 10), "the good ones are charged")

    async def test_the_end_of_a_dead_predecessors_request_is_charged_by_control(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            dead = await mesh.router("r1")
            share = await dead.take("budget", 100)
            async with desks(mesh, "r1") as (desk,), settler(desk) as (settling, _):
                for _ in range(2):  # Envoy and the node both tell, and either may tell twice
                    settling.logged(ended("q1", dead.name, dead.fence, share))
                    settling.reported(report("q2", dead.name, dead.fence, share))
                await until_async(lambda: _is_spent(mesh, 14), "both requests are charged")
                settling.logged(ended("q1", dead.name, dead.fence, share))
                assert await dead.settle(charge("q1", share, 9)) == 0
                await mesh.check_invariants()

    async def test_the_end_of_a_living_routers_request_reaches_it_whoever_is_told(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            async with (
                desks(mesh, "r1", "r2") as (owner, other),
                settler(owner) as (owning, address),
                settler(other) as (told, _),
            ):
                assert await owner.admit("q1")
                held = owner.allowances.book.holds_of("q1")[0]
                share = ledger_pb2.Allowance(id=held.share, limit="budget", unit=ledger_pb2.LIMIT_UNIT_USD)
                record = ended("q1", "r1", owner.allowances.fence, share, address)
                assert record.ticket is not None
                owning.admit(record.ticket)
                told.logged(record)
                await until_async(lambda: _is_spent(mesh, 7), "it is charged")
                assert not owner.allowances.book.holds_of("q1")
                assert not owning.is_admitted("q1")

    async def test_what_a_living_router_cannot_be_told_is_only_noted_until_it_is_gone(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            stopped = await mesh.router("r2")
            share = await stopped.take("budget", 100)
            async with desks(mesh, "r1") as (desk,), settler(desk) as (told, _):
                told.logged(ended("q1", "r2", stopped.fence, share, "127.0.0.1:1"))
                await until_async(lambda: _is_noted(mesh), "it is noted")
                assert await _is_spent(mesh, 0)
                await mesh.router("r2")
                await mesh.control.ledger.resolve_doubt(mesh.clock.now)
                assert await _is_spent(mesh, 7)

    async def test_an_envoy_that_a_router_saw_is_waited_for_though_it_never_shipped_a_line(
        self, database_url: str
    ) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            async with desks(mesh, "r1") as (desk,):
                desk.allowances.follow_envoy("envoy-silent")
                await until_async(lambda: _knows_envoy(mesh), "control knows the Envoy")
            dead = await mesh.router("r2")
            await dead.take("budget", 100)
            mesh.clock.advance(900 + 600)
            await mesh.ledger.ShipAccessLog(_complete("envoy-other", mesh.clock.wall + 100_000))
            assert await mesh.control.ledger.resolve_doubt(mesh.clock.now) == Resolved()
            mesh.clock.advance(60)
            assert await mesh.control.ledger.resolve_doubt(mesh.clock.now) == Resolved(written_off=1)


@asynccontextmanager
async def settler(desk: Desk) -> AsyncIterator[tuple[Settler, str]]:
    """A router's settler, with the service by which others reach it; and where that listens."""
    name = desk.allowances.identity[0]
    handover = Handover(desk.allowances.client, router=name)
    settling = Settler(
        desk.allowances,
        publish=lambda *event: None,
        boot_ms=lambda: 0,
        longest_ms=1 << 60,
        foreign=handover.take,
    )
    server = GrpcServer(Listen())
    service = "enginehouse.v1.RouterService"
    server.add(service, router_pb2_grpc.add_RouterServiceServicer_to_server, _SettleService(settling))  # type: ignore[abstract]
    port = await server.start()
    passing = asyncio.create_task(handover.run())
    try:
        yield settling, f"127.0.0.1:{port}"
    finally:
        passing.cancel()
        await asyncio.gather(passing, return_exceptions=True)
        await handover.stop()
        await server.stop(grace_s=0)


class _SettleService(router_pb2_grpc.RouterServiceServicer):
    def __init__(self, settling: Settler) -> None:
        self._settling = settling

    async def Settle(self, request: router_pb2.SettleRequest, context: Any) -> router_pb2.SettleResponse:  # noqa: ANN401, N802
        return router_pb2.SettleResponse(first=self._settling.reported(request) is not None)


def ticket_of(
    request_id: str, router: str, fence: int, share: ledger_pb2.Allowance, address: str = ""
) -> router_pb2.Ticket:
    """The ticket of a request that holds `NEED` in a share and costs a nano-USD for each token that it writes."""
    return router_pb2.Ticket(
        request_id=request_id,
        router=router,
        fence=fence,
        router_address=address,
        attempts=[router_pb2.Attempt(replica="a", address="10.0.0.1:80", price=PRICE, deployment="d")],
        holds=[router_pb2.Hold(limit=share.limit, unit=share.unit, allowance=share.id, amount=NEED)],
        output_tokens_max=NEED,
    )


def ended(request_id: str, router: str, fence: int, share: ledger_pb2.Allowance, address: str = "") -> AccessRecord:
    """Envoy's word that such a request wrote 7 tokens."""
    usage = common_pb2.Usage(output_tokens=7, method=common_pb2.USAGE_METHOD_ENGINE)
    ticket = ticket_of(request_id, router, fence, share, address)
    return AccessRecord(request_id, router, ticket, "10.0.0.1:80", "", 200, None, usage, False, False, 0, 1)


def report(request_id: str, router: str, fence: int, share: ledger_pb2.Allowance) -> router_pb2.SettleRequest:
    """A node's word of the same."""
    usage = common_pb2.Usage(output_tokens=7, method=common_pb2.USAGE_METHOD_ENGINE)
    return router_pb2.SettleRequest(ticket=ticket_of(request_id, router, fence, share), replica="a", usage=usage)


def _complete(envoy: str, until_ms: int) -> ledger_pb2.ShipAccessLogRequest:
    request = ledger_pb2.ShipAccessLogRequest(envoy=envoy)
    request.complete_until.FromMilliseconds(until_ms)
    return request


async def _is_noted(mesh: Harness) -> bool:
    return await count(mesh, LoggedChargeRow) == 1


async def _knows_envoy(mesh: Harness) -> bool:
    return await count(mesh, AccessLogRow) == 1


async def _is_allotted(mesh: Harness, amount: int) -> bool:
    return (await mesh.status("budget")).allotted == amount


async def _is_spent(mesh: Harness, amount: int) -> bool:
    return (await mesh.status("budget")).spent == amount


async def _has_charges(mesh: Harness, number: int) -> bool:
    return await count(mesh, ChargeRow) == number


def _ids(lossy: LossyLedger, method: str) -> list[str]:
    name = "release_id" if method == "ReleaseAllowances" else "acquisition_id"
    return [getattr(request, name) for asked, request in lossy.calls if asked == method]


def _first(lossy: LossyLedger) -> str:
    return next(iter(_ids(lossy, "ReleaseAllowances")), "")

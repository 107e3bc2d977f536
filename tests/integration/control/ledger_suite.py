"""What LedgerService promises a router, whichever database is behind it."""

import asyncio
from functools import partial

from sqlalchemy import select

from enginehouse.contract import Reason
from enginehouse.router.limits import EVER
from enginehouse.services.control.allowances import open_accounts
from enginehouse.services.control.schema import ChargeRow
from enginehouse.v1 import admin_pb2, ledger_pb2
from tests.integration.control.support import (
    ORGANIZATION,
    START_MS,
    TENANT,
    ManualClock,
    RouterClient,
    charge,
    deployment,
    error_of,
    running,
)


class LedgerSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_fences_grow_over_all_routers(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            fences = [(await mesh.router(name)).fence for name in ("r1", "r2", "r1", "r1", "r3")]
        assert fences == sorted(set(fences))
        async with running(database_url) as mesh:
            assert (await mesh.router("r2")).fence > fences[-1]

    async def test_enrolling_at_once_gives_everybody_another_fence(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            clients = await asyncio.gather(*(mesh.router(f"r{number % 4}") for number in range(20)))
        assert len({client.fence for client in clients}) == 20

    async def test_a_share_is_leased_and_counted(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = (await router.acquire({"budget": (10, 200)})).allowances[0]
            assert (allowance.limit, allowance.unit, allowance.cap) == ("budget", ledger_pb2.LIMIT_UNIT_USD, 1000)
            assert allowance.amount == 200
            assert allowance.term.ToMilliseconds() == 900_000
            assert not allowance.HasField("window_start")
            assert not allowance.HasField("window_left")
            assert (await mesh.status("budget")).allotted == 200
            await mesh.check_invariants()

    async def test_acquiring_again_adds_to_the_same_share_and_prolongs_it(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            first = await router.take("budget", 100)
            mesh.clock.advance(300)
            second = await router.take("budget", 150)
            assert first.id == second.id
            assert second.amount == 150
            assert second.term.ToMilliseconds() == 900_000
            (share,) = await mesh.shares()
            assert (share.remaining, share.term_end_ms) == (250, START_MS + 1_200_000)

    async def test_processes_of_one_router_have_shares_of_their_own(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            first = await (await mesh.router()).take("budget", 100)
            second = await (await mesh.router()).take("budget", 100)
            assert first.id != second.id
            assert (await mesh.status("budget")).allotted == 200

    async def test_a_demand_over_what_is_left_is_refused_with_what_is_left(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            await router.take("budget", 990)
            answer = await router.acquire({"budget": (11, 11)})
            (shortage,) = answer.shortages
            assert not answer.allowances
            assert (shortage.amount_left, shortage.amount_min, shortage.cap) == (10, 11, 1000)
            assert (await router.take("budget", 10)).amount == 10
            assert (await mesh.status("budget")).allotted == 1000

    async def test_of_several_limits_all_are_leased_or_none(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("wide", 1000)
            await mesh.limit("narrow", 10, ledger_pb2.LIMIT_UNIT_REQUESTS)
            await mesh.limit("tight", 5, ledger_pb2.LIMIT_UNIT_IN_FLIGHT)
            router = await mesh.router()
            answer = await router.acquire({"wide": (1, 1), "narrow": (11, 11), "tight": (6, 6)})
            assert [shortage.limit for shortage in answer.shortages] == ["narrow", "tight"]
            assert [(row.limit_id, row.allotted) for row in await mesh.accounts()] == [
                ("narrow", 0),
                ("tight", 0),
                ("wide", 0),
            ]
            answer = await router.acquire({"wide": (1, 1), "narrow": (10, 10), "tight": (5, 5)})
            assert {part.limit: part.amount for part in answer.allowances} == {"wide": 50, "narrow": 10, "tight": 5}

    async def test_an_unknown_limit_is_not_found_and_nothing_is_leased(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            error = await error_of(router.acquire({"budget": (1, 1), "no-such": (1, 1)}))
            assert error.reason is Reason.RESOURCE_NOT_FOUND
            assert "no-such" in error.message
            assert await mesh.accounts() == []

    async def test_the_same_acquisition_takes_nothing_more(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            first = await router.acquire({"budget": (100, 100)}, "a1")
            again = await router.acquire({"budget": (100, 100)}, "a1")
            assert again == first
            assert (await mesh.status("budget")).allotted == 100

    async def test_a_repeated_answer_counts_its_term_from_the_first(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("rate", 100, ledger_pb2.LIMIT_UNIT_TOKENS, ledger_pb2.LIMIT_WINDOW_HOUR)
            router = await mesh.router()
            first = (await router.acquire({"rate": (5, 5)}, "a1")).allowances[0]
            mesh.clock.advance(100)
            again = (await router.acquire({"rate": (5, 5)}, "a1")).allowances[0]
            assert again.term.ToMilliseconds() == first.term.ToMilliseconds() - 100_000
            assert again.window_left.ToMilliseconds() == first.window_left.ToMilliseconds() - 100_000
            mesh.clock.advance(5000)
            late = (await router.acquire({"rate": (5, 5)}, "a1")).allowances[0]
            assert (late.term.ToMilliseconds(), late.window_left.ToMilliseconds()) == (0, 0)

    async def test_a_refused_acquisition_stays_refused_under_its_id(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 10)
            router = await mesh.router()
            refused = await router.acquire({"budget": (11, 11)}, "a1")
            await mesh.set_cap("budget", 1000)
            assert await router.acquire({"budget": (11, 11)}, "a1") == refused
            assert not (await router.acquire({"budget": (11, 11)}, "a2")).shortages

    async def test_the_same_acquisition_at_once_is_granted_once(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            answers = await asyncio.gather(*(router.acquire({"budget": (7, 7)}, "a1") for _ in range(8)))
            assert all(answer == answers[0] for answer in answers)
            assert (await mesh.status("budget")).allotted == answers[0].allowances[0].amount

    async def test_an_acquisition_of_another_process_is_not_repeated_to_this_one(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            await (await mesh.router("r1")).acquire({"budget": (7, 7)}, "a1")
            error = await error_of((await mesh.router("r2")).acquire({"budget": (7, 7)}, "a1"))
            assert error.reason is Reason.MALFORMED_REQUEST

    async def test_a_stale_fence_leases_and_releases_nothing_but_still_settles(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            old = await mesh.router()
            allowance = await old.take("budget", 100)
            new = await mesh.router()
            assert (await error_of(old.acquire({"budget": (1, 1)}))).reason is Reason.STALE_FENCE
            assert (await error_of(old.release())).reason is Reason.STALE_FENCE
            never = RouterClient(mesh.ledger, "r9", 1)
            assert (await error_of(never.acquire({"budget": (1, 1)}))).reason is Reason.STALE_FENCE
            assert await old.settle(charge("q1", allowance, 30)) == 1
            assert (await mesh.status("budget")).spent == 30
            assert not (await new.acquire({"budget": (1, 1)})).shortages

    async def test_a_charge_moves_from_allotted_to_spent(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            assert await router.settle(charge("q1", allowance, 30), charge("q2", allowance, 5, overrun=2)) == 2
            status = await mesh.status("budget")
            assert (status.spent, status.allotted, status.overrun) == (35, 65, 2)
            await mesh.check_invariants()

    async def test_a_request_is_charged_once_on_each_limit(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            await mesh.limit("tokens", 1000, ledger_pb2.LIMIT_UNIT_TOKENS)
            router = await mesh.router()
            usd, tokens = (await router.acquire({"budget": (100, 100), "tokens": (100, 100)})).allowances
            assert await router.settle(charge("q1", usd, 30), charge("q1", usd, 30), charge("q1", tokens, 9)) == 2
            assert await router.settle(charge("q1", usd, 40), charge("q1", tokens, 9), charge("q2", tokens, 1)) == 1
            assert (await mesh.status("budget")).spent == 30
            assert (await mesh.status("tokens")).spent == 10

    async def test_the_same_charges_at_once_are_made_once(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = await router.take("budget", 500)
            charges = [charge(f"q{number}", allowance, 3) for number in range(40)]
            counts = await asyncio.gather(
                *(router.settle(*(charges if turn % 2 else reversed(charges))) for turn in range(6))
            )
            assert sum(counts) == 40
            assert (await mesh.status("budget")).spent == 120

    async def test_use_beyond_the_share_is_reported_and_never_charged(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            await router.settle(charge("q1", allowance, 130, overrun=7))
            status = await mesh.status("budget")
            assert (status.spent, status.allotted, status.overrun) == (100, 0, 37)
            (event,) = mesh.events.limits("overrun")
            assert (event.limit, event.amount, event.spent) == ("budget", 37, 100)

    async def test_one_wrong_charge_refuses_the_batch(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            await mesh.limit("slots", 10, ledger_pb2.LIMIT_UNIT_IN_FLIGHT)
            router = await mesh.router()
            usd, slots = (await router.acquire({"budget": (100, 100), "slots": (2, 2)})).allowances
            good = charge("q1", usd, 30)
            crossed = ledger_pb2.Charge(request_id="q2", limit="budget", allowance=slots.id, amount=1)
            for bad in (charge("q2", slots, 1), crossed, charge("q2", usd, -1), charge("", usd, 1)):
                assert (await error_of(router.settle(good, bad))).reason is Reason.MALFORMED_REQUEST
            foreign = RouterClient(mesh.ledger, "r2", router.fence)
            assert (await error_of(foreign.settle(good))).reason is Reason.MALFORMED_REQUEST
            assert (await mesh.status("budget")).spent == 0

    async def test_what_is_released_can_be_leased_again(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 100)
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            await router.settle(charge("q1", allowance, 10))
            await router.release(
                ledger_pb2.AllowanceReturn(allowance=allowance.id, amount=50),
                ledger_pb2.AllowanceReturn(allowance="gone", amount=50),
            )
            status = await mesh.status("budget")
            assert (status.spent, status.allotted) == (10, 40)
            other = await mesh.router("r2")
            assert (await error_of(other.release(ledger_pb2.AllowanceReturn(allowance=allowance.id)))).reason is (
                Reason.PERMISSION_DENIED
            )
            assert (await other.take("budget", 50)).amount == 50

    async def test_windows_begin_where_the_limits_time_zone_says(self, database_url: str) -> None:
        noon_berlin_ms = 1_774_778_400_000  # 2026-03-29 12:00 +02:00, the day on which clocks went forward
        async with running(database_url, clock=ManualClock(noon_berlin_ms, noon_berlin_ms)) as mesh:
            await mesh.limit("day", 100, window=ledger_pb2.LIMIT_WINDOW_DAY, time_zone="Europe/Berlin")
            router = await mesh.router()
            allowance = await router.take("day", 60)
            assert allowance.window_start.ToJsonString() == "2026-03-28T23:00:00Z"
            assert allowance.window_end.ToJsonString() == "2026-03-29T22:00:00Z"
            assert allowance.window_left.ToMilliseconds() == 12 * 3_600_000
            answer = await router.acquire({"day": (60, 60)})
            assert answer.shortages[0].window_end == allowance.window_end
            assert answer.shortages[0].window_left == allowance.window_left
            mesh.clock.advance(12 * 3600)
            tomorrow = await router.take("day", 60)
            assert tomorrow.id != allowance.id
            assert tomorrow.window_start == allowance.window_end
            await router.settle(charge("late", allowance, 60), charge("early", tomorrow, 1))
            assert [
                (row.spent, row.allotted) for row in sorted(await mesh.accounts(), key=lambda r: r.window_start_ms)
            ] == [
                (60, 0),
                (1, 59),
            ]

    async def test_a_share_can_be_held_in_to_the_end_of_its_window_and_not_much_longer(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("rate", 100, ledger_pb2.LIMIT_UNIT_REQUESTS, ledger_pb2.LIMIT_WINDOW_MINUTE)
            allowance = await (await mesh.router()).take("rate", 1)
            assert allowance.term.ToMilliseconds() == allowance.window_left.ToMilliseconds() + 60_000
            assert allowance.window_left.ToMilliseconds() <= 60_000

    async def test_a_cap_lowered_below_what_is_given_stops_new_grants_until_it_holds_again(
        self, database_url: str
    ) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = await router.take("budget", 600)
            await router.settle(charge("q1", allowance, 200))
            limit = await mesh.set_cap("budget", 300)
            assert (limit.cap, limit.status.cap_effective) == (300, 600)
            assert (await router.acquire({"budget": (1, 1)})).shortages[0].amount_left == 0
            await router.release(ledger_pb2.AllowanceReturn(allowance=allowance.id, amount=350))
            assert (await mesh.status("budget")).cap_effective == 300
            assert (await router.acquire({"budget": (50, 50)})).allowances[0].amount == 50
            await mesh.set_cap("budget", 2000)
            assert (await mesh.status("budget")).cap_effective == 2000
            await mesh.check_invariants()

    async def test_thresholds_are_told_once_each(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 100)
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            for number, amount in enumerate((49, 1, 45, 5)):
                await router.settle(charge(f"q{number}", allowance, amount))
            told = [(event.threshold_percent, event.spent) for event in mesh.events.limits("threshold")]
            assert told == [(50, 50), (80, 95), (100, 100)]

    async def test_thresholds_that_a_lower_cap_passes_are_told_and_those_passed_before_are_not_told_again(
        self, database_url: str
    ) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 100)
            router = await mesh.router()
            allowance = await router.take("budget", 60)
            await router.settle(charge("q1", allowance, 60))
            for cap in (70, 70, 50, 1000, 110):
                await mesh.set_cap("budget", cap)
            await router.settle(charge("q2", await router.take("budget", 30), 28))
            told = [(event.threshold_percent, event.cap) for event in mesh.events.limits("threshold")]
            # at 110 a half is passed anew, because at 1000 it was not
            assert told == [(50, 100), (80, 70), (100, 50), (50, 110), (80, 110)]

    async def test_a_cap_is_lowered_below_what_is_spent_while_requests_run_and_only_falls(
        self, database_url: str
    ) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            allowance = await router.take("budget", 500)
            await router.settle(charge("q1", allowance, 400))
            effective = [(await mesh.set_cap("budget", 100)).status.cap_effective]
            for number in range(5):
                await router.settle(charge(f"r{number}", allowance, 10))
                await router.release(ledger_pb2.AllowanceReturn(allowance=allowance.id, amount=10))
                effective.append((await mesh.status("budget")).cap_effective)
            assert effective == [500, 490, 480, 470, 460, 450]
            assert (await router.acquire({"budget": (1, 1)})).shortages[0].amount_left == 0
            await mesh.set_cap("budget", 451)
            assert (await router.take("budget", 1)).amount == 1
            await mesh.check_invariants()

    async def test_an_account_that_is_opened_while_the_cap_changes_has_the_new_one(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            await mesh.set_cap("budget", 50)
            # as if the first to lease had read the limit before the change and opened the account after it
            await mesh.control.database.write(partial(open_accounts, windows=[("budget", EVER), ("gone", EVER)]))
            router = await mesh.router()
            assert (await router.acquire({"budget": (51, 51)})).shortages[0].amount_left == 50

    async def test_a_limit_with_a_period_caps_nothing_outside_it(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            hour_ms = 3_600_000
            limit = admin_pb2.Limit(
                scope=ORGANIZATION, unit=ledger_pb2.LIMIT_UNIT_USD, window=ledger_pb2.LIMIT_WINDOW_NONE, cap=100
            )
            limit.start_time.FromMilliseconds(START_MS + hour_ms)
            limit.end_time.FromMilliseconds(START_MS + 3 * hour_ms)
            await mesh.admin.CreateLimit(admin_pb2.CreateLimitRequest(limit_id="budget", limit=limit))
            router = await mesh.router()
            before = await router.take("budget", 10_000)
            assert before.window_left.ToMilliseconds() == hour_ms
            mesh.clock.advance(3600)
            assert (await router.acquire({"budget": (101, 101)})).shortages[0].amount_left == 100
            inside = await router.take("budget", 60)
            assert inside.window_left.ToMilliseconds() == 2 * hour_ms
            await router.settle(charge("q1", before, 5000), charge("q2", inside, 60))
            assert (await mesh.set_cap("budget", 70)).status.spent == 60
            assert (await router.acquire({"budget": (11, 11)})).shortages[0].amount_left == 10
            mesh.clock.advance(7200)
            after = await router.take("budget", 10_000)
            assert not after.HasField("window_left")
            assert [event.threshold_percent for event in mesh.events.limits("threshold")] == [50, 80]

    async def test_a_period_that_is_over_and_limits_that_overlap_are_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:

            def limit(start_s: int | None, end_s: int | None, scope: str = ORGANIZATION) -> admin_pb2.Limit:
                made = admin_pb2.Limit(
                    scope=scope, unit=ledger_pb2.LIMIT_UNIT_USD, window=ledger_pb2.LIMIT_WINDOW_DAY, cap=100
                )
                if start_s is not None:
                    made.start_time.FromMilliseconds(START_MS + start_s * 1000)
                if end_s is not None:
                    made.end_time.FromMilliseconds(START_MS + end_s * 1000)
                return made

            async def create(name: str, made: admin_pb2.Limit) -> admin_pb2.Limit:
                return await mesh.admin.CreateLimit(admin_pb2.CreateLimitRequest(limit_id=name, limit=made))

            for made, words in (
                (limit(-100, 0), "has passed"),
                (limit(None, -1), "has passed"),
                (limit(100, 100), "not later than"),
                (limit(100, 50), "not later than"),
            ):
                error = await error_of(create("wrong", made))
                assert error.reason is Reason.MALFORMED_REQUEST
                assert words in error.message
            first = await create("first", limit(0, 100))
            await create("second", limit(100, 200))
            await mesh.tenant()
            await create("elsewhere", limit(0, 100, TENANT))
            for start_s, end_s in ((None, None), (50, 150), (None, 50), (199, None), (0, 100)):
                error = await error_of(create("third", limit(start_s, end_s)))
                assert error.reason is Reason.RESOURCE_EXISTS
                assert "limits/first" in error.message or "limits/second" in error.message
            await create("third", limit(200, None))
            moved = admin_pb2.Limit(name="limits/first", cap=5)
            moved.end_time.FromMilliseconds(START_MS + 101_000)
            assert (await error_of(mesh.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=moved)))).reason is (
                Reason.MALFORMED_REQUEST
            )
            first.cap = 5
            assert (await mesh.admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=first))).cap == 5

    async def test_an_overrun_quarantines_the_deployment_until_it_is_updated(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            made = await mesh.admin.CreateDeployment(
                admin_pb2.CreateDeploymentRequest(deployment_id="small", deployment=deployment())
            )
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            over = charge("q1", allowance, 10, overrun=2)
            over.deployment = "small"
            gone = charge("q2", allowance, 10, overrun=1)
            gone.deployment = "no.such/thing"
            for _ in range(2):
                await router.settle(over, gone)
            name = admin_pb2.GetDeploymentRequest(name="deployments/small")
            found = await mesh.admin.GetDeployment(name)
            assert "more than was held" in found.quarantine
            assert (found.revision, found.etag) == (made.revision, made.etag)
            told = [event for event in mesh.events.told if event.what == "quarantined"]
            assert [event.subject_id for event in told] == ["deployments_small"]
            assert [event.amount for event in mesh.events.limits("overrun")] == [3]
            await mesh.control.publisher.wait_until_current()
            published = admin_pb2.Deployment.FromString(mesh.store.kept["deployments.small"])
            assert published.quarantine == found.quarantine
            lifted = await mesh.admin.UpdateDeployment(admin_pb2.UpdateDeploymentRequest(deployment=found))
            assert (lifted.quarantine, lifted.revision) == ("", made.revision)
            await router.settle(over)
            assert not (await mesh.admin.GetDeployment(name)).quarantine

    async def test_charges_after_a_limit_is_gone_are_kept_and_change_nothing(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 100)
            router = await mesh.router()
            allowance = await router.take("budget", 100)
            await mesh.admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name="limits/budget"))
            await mesh.limit("budget", 100)
            fresh = await router.take("budget", 100)
            assert fresh.id != allowance.id
            assert await router.settle(charge("q1", allowance, 40)) == 1
            assert await router.settle(charge("q1", allowance, 40)) == 0
            assert (await mesh.status("budget")).spent == 0
            async with mesh.control.database.read() as session:
                (row,) = await session.scalars(select(ChargeRow))
            assert (row.request_id, row.amount, row.late) == ("q1", 0, 40)

    async def test_malformed_acquisitions_are_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 100)
            router = await mesh.router()
            twice = ledger_pb2.AllowanceDemand(limit="budget", amount_min=1)
            base = ledger_pb2.AcquireAllowancesRequest(router="r1", fence=router.fence, acquisition_id="a1")
            for demands, acquisition_id in (
                ([twice, twice], "a1"),
                ([], "a1"),
                ([ledger_pb2.AllowanceDemand(limit="budget", amount_min=-1)], "a1"),
                ([twice], ""),
                ([ledger_pb2.AllowanceDemand(limit=f"l{n}") for n in range(65)], "a1"),
            ):
                request = ledger_pb2.AcquireAllowancesRequest()
                request.CopyFrom(base)
                request.demands.extend(demands)
                request.acquisition_id = acquisition_id
                assert (await error_of(mesh.ledger.AcquireAllowances(request))).reason is Reason.MALFORMED_REQUEST
            assert (await error_of(mesh.router("no.dots"))).reason is Reason.MALFORMED_REQUEST
            assert await mesh.accounts() == []

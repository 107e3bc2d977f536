"""What becomes of requests whose router is gone: access logs, and the end of doubt."""

from dataclasses import dataclass, field, replace
from functools import partial

from google.protobuf import timestamp_pb2
from sqlalchemy import func, select

from enginehouse.contract import Reason
from enginehouse.services.access_log import AccessRecord
from enginehouse.services.control import Resolved
from enginehouse.services.control.accounts import AccountKey
from enginehouse.services.control.schema import AccessLogRow, ChargeRow, LoggedChargeRow, ShareRow
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2
from tests.integration.control.support import SETTINGS, Harness, ManualClock, RouterClient, charge, error_of, running

PRICE = common_pb2.Price(output_nanousd_per_million_tokens=1_000_000)
"""One nano-USD for each generated token."""

TERM_S, LONGEST_S, DRIFT_S, GRACE_S, REPORT_S = 900, 600, 5, 60, 45


@dataclass
class Envoy:
    """An Envoy process: its lines, and how they are shipped."""

    mesh: Harness
    book: "LineBook"
    name: str = "envoy-1"
    lines: list[str] = field(default_factory=list)
    shipped: int = 0

    def serve(
        self,
        request_id: str,
        router: RouterClient,
        *allowances: ledger_pb2.Allowance,
        hold: int = 50,
        output_tokens: int | None = 10,
        http_status: int = 200,
        lane: common_pb2.Lane.ValueType = common_pb2.LANE_DIRECT,
    ) -> None:
        holds = [
            router_pb2.Hold(limit=part.limit, unit=part.unit, allowance=part.id, amount=hold) for part in allowances
        ]
        ticket = router_pb2.Ticket(
            request_id=request_id,
            router=router.name,
            fence=router.fence,
            lane=lane,
            attempts=[router_pb2.Attempt(replica="a", address="10.0.0.1:80", price=PRICE)],
            holds=holds,
            output_tokens_max=hold,
        )
        usage = None if output_tokens is None else common_pb2.Usage(output_tokens=output_tokens)
        record = AccessRecord(
            request_id, router.name, ticket, "10.0.0.1:80", "", http_status, None, usage, False, False, 0, 1
        )
        self.lines.append(self.book.write(record))

    async def ship(self, *, complete_s: float | None = None, gap: bool = False) -> int:
        """Ships what is new. `complete_s`: the log is complete up to so many seconds from now."""
        request = ledger_pb2.ShipAccessLogRequest(
            envoy=self.name, first_line=self.shipped, lines=self.lines[self.shipped :], gap=gap
        )
        if complete_s is not None:
            request.complete_until.CopyFrom(_timestamp(self.mesh.clock.wall + round(complete_s * 1000)))
        self.shipped = (await self.mesh.ledger.ShipAccessLog(request)).next_line
        return self.shipped


@dataclass
class LineBook:
    """Lines whose meaning is looked up. One that is not in it is unreadable."""

    records: dict[str, AccessRecord | None] = field(default_factory=lambda: {"not ours": None})

    def write(self, record: AccessRecord) -> str:
        line = f"line {len(self.records)}"
        self.records[line] = record
        return line

    def read(self, line: str) -> AccessRecord | None:
        return self.records[line]


def _timestamp(unix_ms: int) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=unix_ms // 1000, nanos=unix_ms % 1000 * 1_000_000)


async def resolve(mesh: Harness) -> Resolved:
    resolved = await mesh.control.ledger.resolve_doubt(mesh.clock.now)
    await mesh.check_invariants()
    return resolved


async def spent(mesh: Harness, limit: str = "budget") -> tuple[int, int, int, int]:
    status = await mesh.status(limit)
    return status.spent, status.allotted, status.overrun, status.written_off


async def count(mesh: Harness, table: type[ChargeRow | LoggedChargeRow | ShareRow | AccessLogRow]) -> int:
    async with mesh.control.database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


class AccessLogSuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_lines_of_a_dead_router_are_charged_by_the_rule_of_settlement(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            await mesh.limit("tokens", 1000, ledger_pb2.LIMIT_UNIT_TOKENS)
            await mesh.limit("slots", 10, ledger_pb2.LIMIT_UNIT_IN_FLIGHT)
            dead = await mesh.router()
            shares = (await dead.acquire({"budget": (100, 100), "tokens": (100, 100), "slots": (2, 2)})).allowances
            await mesh.router()
            envoy = Envoy(mesh, book)
            envoy.serve("q1", dead, *shares, output_tokens=10)
            envoy.serve("q2", dead, *shares, output_tokens=None)
            envoy.serve("q3", dead, *shares, output_tokens=None, http_status=503)
            envoy.lines.append("not ours")
            assert await envoy.ship() == 4
            assert await spent(mesh) == (60, 40, 0, 0)
            assert await spent(mesh, "tokens") == (60, 40, 0, 0)
            assert (await spent(mesh, "slots"))[0] == 0
            # what the log has no charge for is left to whoever knows better
            assert await dead.settle(charge("q3", shares[0], 5)) == 1
            await mesh.check_invariants()

    async def test_use_beyond_the_hold_is_reported_from_the_log_too(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            dead = await mesh.router()
            share = await dead.take("budget", 100)
            await mesh.router()
            envoy = Envoy(mesh, book)
            envoy.serve("q1", dead, share, hold=50, output_tokens=53)
            await envoy.ship()
            assert await spent(mesh) == (50, 50, 3, 0)

    async def test_a_living_router_settles_its_requests_itself(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share)
            await envoy.ship()
            assert await spent(mesh) == (0, 100, 0, 0)
            assert await count(mesh, LoggedChargeRow) == 1
            assert await router.settle(charge("q1", share, 10)) == 1
            await resolve(mesh)
            assert await spent(mesh) == (10, 90, 0, 0)
            assert await count(mesh, LoggedChargeRow) == 0

    async def test_a_line_about_a_settled_request_changes_nothing(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            await router.settle(charge("q1", share, 12), charge("q2", share, 3))
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share)
            await envoy.ship()
            await mesh.router()
            envoy.serve("q2", router, share)
            await envoy.ship()
            assert await spent(mesh) == (15, 85, 0, 0)
            assert await count(mesh, LoggedChargeRow) == 0

    async def test_a_router_that_settles_after_the_log_did_charges_nothing_more(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            await mesh.router()
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share)
            await envoy.ship()
            assert await router.settle(charge("q1", share, 10)) == 0
            assert await spent(mesh) == (10, 90, 0, 0)

    async def test_what_was_noted_is_charged_once_the_router_has_a_successor(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share)
            await envoy.ship()
            await resolve(mesh)
            assert (await spent(mesh))[0] == 0
            await mesh.router()
            assert await resolve(mesh) == Resolved()
            assert await spent(mesh) == (10, 90, 0, 0)

    async def test_what_the_adapter_lanes_log_does_not_know_waits_for_the_nodes_report(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            await mesh.router()
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share, output_tokens=None, lane=common_pb2.LANE_ADAPTER)
            await envoy.ship()
            mesh.clock.advance(REPORT_S - 1)
            await resolve(mesh)
            assert await spent(mesh) == (0, 100, 0, 0)
            reported = ledger_pb2.ReportedCharge(router=router.name, fence=router.fence, charge=charge("q1", share, 7))
            await mesh.ledger.ReportCharges(ledger_pb2.ReportChargesRequest(reporter="r1", charges=[reported]))
            mesh.clock.advance(1)
            await resolve(mesh)
            assert await spent(mesh) == (7, 93, 0, 0)
            assert await count(mesh, LoggedChargeRow) == 0

    async def test_what_no_node_reports_in_time_is_charged_by_its_bound(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            await mesh.router()
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share, output_tokens=None, lane=common_pb2.LANE_ADAPTER)
            await envoy.ship()
            mesh.clock.advance(REPORT_S)
            await resolve(mesh)
            assert await spent(mesh) == (50, 50, 0, 0)

    async def test_doubt_does_not_end_before_the_nodes_report_has_had_its_time(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            await mesh.router()
            mesh.clock.advance(TERM_S + LONGEST_S)
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share, output_tokens=None, lane=common_pb2.LANE_ADAPTER)
            await envoy.ship(complete_s=DRIFT_S)
            mesh.clock.advance(REPORT_S - 1)
            await resolve(mesh)
            assert await spent(mesh) == (0, 100, 0, 0)
            reported = ledger_pb2.ReportedCharge(router=router.name, fence=router.fence, charge=charge("q1", share, 7))
            await mesh.ledger.ReportCharges(ledger_pb2.ReportChargesRequest(reporter="r1", charges=[reported]))
            assert await resolve(mesh) == Resolved(closed=1)
            assert await spent(mesh) == (7, 0, 0, 0)

    async def test_what_was_noted_is_charged_once_the_share_is_past_its_term(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share)
            await envoy.ship()
            mesh.clock.advance(TERM_S)
            await resolve(mesh)
            assert await spent(mesh) == (10, 90, 0, 0)
            envoy.serve("q2", router, share)
            await envoy.ship()
            assert await spent(mesh) == (20, 80, 0, 0)

    async def test_a_line_that_is_noted_while_doubt_ends_is_charged_first(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, share)
            await envoy.ship(complete_s=TERM_S + LONGEST_S + DRIFT_S)
            mesh.clock.advance(TERM_S + LONGEST_S)
            # the step that ends the doubt alone, as if the line had come after the one that looks for such lines
            end = partial(
                mesh.control.ledger._resolver._resolve_account, key=AccountKey("budget", 0), now=mesh.clock.now
            )
            assert await mesh.control.database.write(end) == Resolved(closed=1)
            assert await spent(mesh) == (10, 0, 0, 0)

    async def test_lines_are_taken_in_order_and_once(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            await mesh.router()
            envoy = Envoy(mesh, book)
            for number in range(5):
                envoy.serve(f"q{number}", router, share)

            async def ship(first: int, *lines: str) -> int:
                request = ledger_pb2.ShipAccessLogRequest(envoy="envoy-1", first_line=first, lines=lines)
                return (await mesh.ledger.ShipAccessLog(request)).next_line

            assert await ship(0) == 0
            assert await ship(1, envoy.lines[1]) == 0
            assert (await spent(mesh))[0] == 0
            assert await ship(0, *envoy.lines[:2]) == 2
            assert await ship(0, *envoy.lines[:2]) == 2
            assert await ship(1, *envoy.lines[1:4]) == 4
            assert await ship(0, envoy.lines[0]) == 4
            assert (await spent(mesh))[0] == 40

    async def test_malformed_shipments_are_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            for request, reason in (
                (ledger_pb2.ShipAccessLogRequest(), Reason.MALFORMED_REQUEST),
                (ledger_pb2.ShipAccessLogRequest(envoy="e", first_line=-1), Reason.MALFORMED_REQUEST),
                (ledger_pb2.ShipAccessLogRequest(envoy="e", lines=["x"] * 2001), Reason.REQUEST_TOO_LARGE),
            ):
                assert (await error_of(mesh.ledger.ShipAccessLog(request))).reason is reason

    async def test_doubt_ends_without_a_charge_when_every_log_is_complete(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            dead = await mesh.router()
            share = await dead.take("budget", 100)
            envoys = [Envoy(mesh, book, "envoy-1"), Envoy(mesh, book, "envoy-2")]
            envoys[1].serve("q1", dead, share)
            mesh.clock.advance(TERM_S + LONGEST_S - 1)
            for envoy in envoys:
                await envoy.ship(complete_s=100)
            assert await resolve(mesh) == Resolved()
            mesh.clock.advance(1)
            assert await resolve(mesh) == Resolved(closed=1)
            assert await spent(mesh) == (10, 0, 0, 0)
            assert mesh.events.limits("written_off") == []
            assert await resolve(mesh) == Resolved()

    async def test_doubt_is_charged_in_full_and_told_when_a_log_has_a_gap(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 100)
            dead = await mesh.router()
            share = await dead.take("budget", 100)
            killed = Envoy(mesh, book, "envoy-1")
            killed.serve("q1", dead, share)
            await killed.ship(complete_s=0, gap=True)
            mesh.clock.advance(TERM_S + LONGEST_S)
            await Envoy(mesh, book, "envoy-2").ship(complete_s=100)
            assert await resolve(mesh) == Resolved()
            mesh.clock.advance(GRACE_S)
            assert await resolve(mesh) == Resolved(written_off=1)
            assert await spent(mesh) == (100, 0, 0, 90)
            (event,) = mesh.events.limits("written_off")
            assert (event.limit, event.amount, event.spent) == ("budget", 90, 100)
            assert [event.threshold_percent for event in mesh.events.limits("threshold")] == [50, 80, 100]

    async def test_a_gap_that_ended_before_the_share_was_made_does_not_count(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            await Envoy(mesh, book, "envoy-1").ship(complete_s=0, gap=True)
            mesh.clock.advance(DRIFT_S + 1)
            await (await mesh.router()).take("budget", 100)
            mesh.clock.advance(TERM_S + LONGEST_S)
            await Envoy(mesh, book, "envoy-2").ship(complete_s=100)
            assert await resolve(mesh) == Resolved(closed=1)
            assert await spent(mesh) == (0, 0, 0, 0)

    async def test_an_envoy_that_ended_in_order_never_holds_up_the_end_of_doubt(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            end_of_time = timestamp_pb2.Timestamp(seconds=253_402_214_400)
            await mesh.ledger.ShipAccessLog(
                ledger_pb2.ShipAccessLogRequest(envoy="envoy-1", complete_until=end_of_time)
            )
            await (await mesh.router()).take("budget", 100)
            mesh.clock.advance(TERM_S + LONGEST_S)
            assert await resolve(mesh) == Resolved(closed=1)

    async def test_lost_lines_of_a_running_envoy_are_a_gap_for_the_shares_of_that_time(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            await (await mesh.router("r1")).take("budget", 100)
            envoy = Envoy(mesh, book)
            mesh.clock.advance(10)
            await envoy.ship(complete_s=0, gap=True)
            mesh.clock.advance(10)
            await (await mesh.router("r2")).take("budget", 10)
            mesh.clock.advance(TERM_S + LONGEST_S + GRACE_S)
            assert await resolve(mesh) == Resolved(closed=1, written_off=1)
            await (await mesh.router("r3")).take("budget", 10)
            await envoy.ship(complete_s=0)
            mesh.clock.advance(TERM_S + LONGEST_S)
            assert await resolve(mesh) == Resolved()

    async def test_a_log_that_comes_late_is_waited_for(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            dead = await mesh.router()
            share = await dead.take("budget", 100)
            envoy = Envoy(mesh, book)
            envoy.serve("q1", dead, share)
            await envoy.ship(complete_s=0)
            mesh.clock.advance(TERM_S + LONGEST_S + GRACE_S - 1)
            assert await resolve(mesh) == Resolved()
            await envoy.ship(complete_s=0)
            assert await resolve(mesh) == Resolved(closed=1)
            assert await spent(mesh) == (10, 0, 0, 0)

    async def test_a_log_that_never_comes_and_an_envoy_nobody_knows_are_charged(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            await (await mesh.router()).take("budget", 100)
            mesh.clock.advance(TERM_S + LONGEST_S)
            assert await resolve(mesh) == Resolved()
            mesh.clock.advance(GRACE_S)
            assert await resolve(mesh) == Resolved(written_off=1)
            assert await spent(mesh) == (100, 0, 0, 100)

    async def test_after_a_long_absence_of_control_everybody_gets_the_time_to_report(self, database_url: str) -> None:
        book, clock = LineBook(), ManualClock()
        async with running(database_url, reader=book.read, clock=clock) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            envoy = Envoy(mesh, book)
            await envoy.ship(complete_s=0)
        clock.advance(7 * 24 * 3600)
        async with running(database_url, reader=book.read, clock=clock) as mesh:
            assert await resolve(mesh) == Resolved()
            assert await count(mesh, AccessLogRow) == 1
            mesh.clock.advance(GRACE_S - 1)
            assert await resolve(mesh) == Resolved()
            router.ledger = mesh.ledger
            assert await router.settle(charge("q1", share, 30)) == 1
            envoy.mesh = mesh
            await envoy.ship(complete_s=0)
            assert await resolve(mesh) == Resolved(closed=1)
            assert await spent(mesh) == (30, 0, 0, 0)

    async def test_slots_in_flight_are_freed_without_a_charge(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("slots", 10, ledger_pb2.LIMIT_UNIT_IN_FLIGHT)
            await (await mesh.router("r1")).take("slots", 4)
            mesh.clock.advance(LONGEST_S)
            await (await mesh.router("r2")).take("slots", 1)
            mesh.clock.advance(TERM_S)
            assert await resolve(mesh) == Resolved(closed=1)
            assert await spent(mesh, "slots") == (0, 1, 0, 0)

    async def test_an_unreadable_line_is_passed_over_and_counts_as_a_gap(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            dead = await mesh.router()
            share = await dead.take("budget", 100)
            await mesh.router()
            envoy = Envoy(mesh, book, lines=["garbage"])
            envoy.serve("q1", dead, share)
            assert await envoy.ship() == 2
            assert (await spent(mesh))[0] == 10
            mesh.clock.advance(TERM_S + LONGEST_S + GRACE_S)
            await envoy.ship(complete_s=0)
            assert await resolve(mesh) == Resolved(written_off=1)

    async def test_a_charge_after_the_share_was_given_back_is_reported(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            mesh.clock.advance(TERM_S + LONGEST_S)
            await Envoy(mesh, book).ship(complete_s=100)
            assert await resolve(mesh) == Resolved(closed=1)
            assert await router.settle(charge("q1", share, 30, overrun=1)) == 1
            assert await spent(mesh) == (0, 0, 31, 0)
            assert [event.amount for event in mesh.events.limits("overrun")] == [31]

    async def test_a_charge_after_the_share_was_written_off_is_covered_already(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            share = await router.take("budget", 100)
            mesh.clock.advance(TERM_S + LONGEST_S + GRACE_S)
            await resolve(mesh)
            assert await router.settle(charge("q1", share, 30)) == 1
            assert await spent(mesh) == (100, 0, 0, 100)
            async with mesh.control.database.read() as session:
                (row,) = await session.scalars(select(ChargeRow))
            assert (row.amount, row.overrun, row.late) == (0, 0, 30)

    async def test_a_router_that_wakes_after_its_share_has_ended_gets_another(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            ended = await router.take("budget", 100)
            mesh.clock.advance(TERM_S + LONGEST_S + GRACE_S)
            await resolve(mesh)
            fresh = await router.take("budget", 70)
            assert fresh.id != ended.id
            await router.settle(charge("q1", fresh, 70))
            assert await spent(mesh) == (170, 0, 0, 100)

    async def test_a_share_that_is_prolonged_is_not_in_doubt(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            for _ in range(4):
                await router.take("budget", 10)
                mesh.clock.advance(TERM_S - 1)
            assert await resolve(mesh) == Resolved()

    async def test_a_clock_that_is_set_forward_ends_no_share(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            router = await mesh.router()
            await router.take("budget", 10)
            mesh.clock.wall += 7 * 24 * 3_600_000
            assert await resolve(mesh) == Resolved()
            assert (await router.take("budget", 10)).term.ToMilliseconds() == TERM_S * 1000

    async def test_an_envoy_nobody_hears_of_is_taken_for_killed_and_forgotten_with_the_last_share(
        self, database_url: str
    ) -> None:
        book = LineBook()
        async with running(
            database_url, reader=book.read, settings=replace(SETTINGS, envoy_silence_s=2 * TERM_S)
        ) as mesh:
            await mesh.limit("budget", 1000)
            await Envoy(mesh, book, "lost").ship(complete_s=0)
            router = await mesh.router("r1")
            for _ in range(3):
                await router.take("budget", 10)
                mesh.clock.advance(TERM_S - 1)
            await resolve(mesh)
            await (await mesh.router("r2")).take("budget", 10)
            mesh.clock.advance(DRIFT_S + 1)
            await (await mesh.router("r3")).take("budget", 10)
            assert await count(mesh, AccessLogRow) == 1
            mesh.clock.advance(TERM_S + LONGEST_S + GRACE_S)
            await Envoy(mesh, book, "found").ship(complete_s=100)
            assert await resolve(mesh) == Resolved(closed=1, written_off=2)
            assert await count(mesh, AccessLogRow) == 1

    async def test_history_is_forgotten_and_open_shares_are_not(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.limit("budget", 1000)
            await mesh.limit("rate", 1000, ledger_pb2.LIMIT_UNIT_TOKENS, ledger_pb2.LIMIT_WINDOW_MINUTE)
            router = await mesh.router()
            usd, tokens = (await router.acquire({"budget": (10, 10), "rate": (10, 10)})).allowances
            await router.settle(charge("q1", usd, 1), charge("q1", tokens, 1))
            mesh.clock.advance(32 * 24 * 3600)
            await router.take("budget", 1)
            await resolve(mesh)
            mesh.clock.advance(1)
            await resolve(mesh)
            assert await count(mesh, ShareRow) == 1
            assert [row.limit_id for row in await mesh.accounts()] == ["budget"]
            assert await router.settle(charge("q1", usd, 1)) == 0
            assert await count(mesh, ChargeRow) == 1

    async def test_lines_about_a_limit_that_is_gone_hold_up_nothing(self, database_url: str) -> None:
        book = LineBook()
        async with running(database_url, reader=book.read) as mesh:
            await mesh.limit("budget", 1000)
            await mesh.limit("other", 1000, ledger_pb2.LIMIT_UNIT_TOKENS)
            router = await mesh.router()
            gone, stays = (await router.acquire({"budget": (100, 100), "other": (100, 100)})).allowances
            await mesh.admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name="limits/budget"))
            envoy = Envoy(mesh, book)
            envoy.serve("q1", router, gone, stays)
            await envoy.ship()
            await mesh.router()
            await resolve(mesh)
            assert await spent(mesh, "other") == (10, 90, 0, 0)
            assert await count(mesh, LoggedChargeRow) == 0

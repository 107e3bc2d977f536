"""What the tests of control share: a control with real gRPC around it, and the things it is given."""

import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message
from sqlalchemy import func, select

from enginehouse.contract import DependencyError, EnginehouseError
from enginehouse.services.access_log import AccessRecord, read_line
from enginehouse.services.control import Control, ControlSettings, Now, Started
from enginehouse.services.control.schema import AccountRow, ShareRow
from enginehouse.services.server import channel, error_from_rpc
from enginehouse.v1 import admin_pb2, admin_pb2_grpc, common_pb2, events_pb2, ledger_pb2, ledger_pb2_grpc

START_MS = 1_790_000_000_000
ORGANIZATION = "organizations/default"
TENANT = f"{ORGANIZATION}/tenants/acme"
SETTINGS = ControlSettings(database_url="", term_s=900, longest_request_s=600, resolve_interval_s=3600)


@dataclass
class ManualClock:
    """Both clocks, moved by hand."""

    wall: int = START_MS
    steady: int = START_MS

    def wall_ms(self) -> int:
        return self.wall

    def steady_ms(self) -> int:
        return self.steady

    def advance(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)
        self.steady += round(seconds * 1000)

    @property
    def now(self) -> Now:
        return Now(self.wall, self.steady)


@dataclass
class Told:
    """An event as it was published."""

    kind: str
    subject_id: str
    what: str
    payload: Message


@dataclass
class RecordingSink:
    """Keeps every event."""

    told: list[Told] = field(default_factory=list)

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        self.told.append(Told(kind, subject_id, what, payload))

    def limits(self, what: str) -> list[events_pb2.LimitChanged]:
        return [event.payload for event in self.told if event.what == what and _is_limit(event.payload)]  # type: ignore[misc]


def _is_limit(payload: Message) -> bool:
    return isinstance(payload, events_pb2.LimitChanged)


@dataclass
class MemoryStore:
    """A key-value store that can be away."""

    kept: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    is_away: bool = False
    refused: int = 0

    def _check(self) -> None:
        if self.is_away:
            self.refused += 1
            raise DependencyError("the store is away")

    async def put(self, key: str, value: bytes) -> None:
        self._check()
        self.log.append(f"put {key}")
        self.kept[key] = value

    async def delete(self, key: str) -> None:
        self._check()
        self.log.append(f"delete {key}")
        self.kept.pop(key, None)

    async def entries(self) -> dict[str, bytes]:
        self._check()
        return dict(self.kept)


@dataclass
class Harness:
    """A running control, its clients, and what it was given."""

    control: Control
    started: Started
    clock: ManualClock
    events: RecordingSink
    store: MemoryStore
    ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub"
    admin: "admin_pb2_grpc.AdminServiceAsyncStub"
    admin_over_tcp: "admin_pb2_grpc.AdminServiceAsyncStub"

    async def tenant(self, name: str = "acme") -> admin_pb2.Tenant:
        return await self.admin.CreateTenant(admin_pb2.CreateTenantRequest(parent=ORGANIZATION, tenant_id=name))

    async def limit(
        self,
        name: str,
        cap: int,
        unit: ledger_pb2.LimitUnit.ValueType = ledger_pb2.LIMIT_UNIT_USD,
        window: ledger_pb2.LimitWindow.ValueType = ledger_pb2.LIMIT_WINDOW_NONE,
        time_zone: str = "",
        scope: str = ORGANIZATION,
    ) -> admin_pb2.Limit:
        limit = admin_pb2.Limit(scope=scope, unit=unit, window=window, cap=cap, time_zone=time_zone)
        return await self.admin.CreateLimit(admin_pb2.CreateLimitRequest(limit_id=name, limit=limit))

    async def set_cap(self, name: str, cap: int) -> admin_pb2.Limit:
        return await self.admin.UpdateLimit(
            admin_pb2.UpdateLimitRequest(limit=admin_pb2.Limit(name=f"limits/{name}", cap=cap))
        )

    async def status(self, name: str) -> admin_pb2.LimitStatus:
        return (await self.admin.GetLimit(admin_pb2.GetLimitRequest(name=f"limits/{name}"))).status

    async def router(self, name: str = "r1") -> "RouterClient":
        answer = await self.ledger.Enroll(ledger_pb2.EnrollRequest(router=name))
        return RouterClient(self.ledger, name, answer.fence)

    async def accounts(self) -> list[AccountRow]:
        async with self.control.database.read() as session:
            return list(await session.scalars(select(AccountRow).order_by(AccountRow.limit_id)))

    async def shares(self) -> list[ShareRow]:
        async with self.control.database.read() as session:
            return list(await session.scalars(select(ShareRow).order_by(ShareRow.id)))

    async def check_invariants(self) -> int:
        """Checks every account in one statement, so in one snapshot. Returns how many there are."""
        held = (
            select(func.coalesce(func.sum(ShareRow.remaining), 0))
            .where(ShareRow.limit_id == AccountRow.limit_id, ShareRow.window_start_ms == AccountRow.window_start_ms)
            .correlate(AccountRow)
            .scalar_subquery()
        )
        async with self.control.database.read() as session:
            rows = (await session.execute(select(AccountRow, held))).all()
        for account, remaining in rows:
            assert remaining == account.allotted, account
            assert account.spent + account.allotted <= account.cap_effective, account
            assert account.cap_effective >= account.cap_target, account
        return len(rows)


@dataclass
class RouterClient:
    """One router process as the ledger sees it."""

    ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub"
    name: str
    fence: int

    async def acquire(
        self, demands: Mapping[str, tuple[int, int]], acquisition_id: str = ""
    ) -> ledger_pb2.AcquireAllowancesResponse:
        return await self.ledger.AcquireAllowances(
            ledger_pb2.AcquireAllowancesRequest(
                router=self.name,
                fence=self.fence,
                acquisition_id=acquisition_id or uuid.uuid4().hex,
                demands=[
                    ledger_pb2.AllowanceDemand(limit=limit, amount_min=least, amount_want=want)
                    for limit, (least, want) in demands.items()
                ],
            )
        )

    async def take(self, limit: str, amount: int) -> ledger_pb2.Allowance:
        answer = await self.acquire({limit: (amount, amount)})
        assert len(answer.allowances) == 1, answer
        return answer.allowances[0]

    async def settle(self, *charges: ledger_pb2.Charge) -> int:
        request = ledger_pb2.SettleChargesRequest(router=self.name, fence=self.fence, charges=charges)
        return (await self.ledger.SettleCharges(request)).charged

    async def release(
        self, *returns: ledger_pb2.AllowanceReturn, release_id: str = "", recalls: Sequence[str] = ()
    ) -> None:
        await self.ledger.ReleaseAllowances(
            ledger_pb2.ReleaseAllowancesRequest(
                router=self.name,
                fence=self.fence,
                returns=returns,
                release_id=release_id or uuid.uuid4().hex,
                recalls=recalls,
            )
        )


def charge(request_id: str, allowance: ledger_pb2.Allowance, amount: int, overrun: int = 0) -> ledger_pb2.Charge:
    """A charge in the share of `allowance`."""
    return ledger_pb2.Charge(
        request_id=request_id, limit=allowance.limit, allowance=allowance.id, amount=amount, overrun=overrun
    )


def placement(node: str = "eu-de", price_nanousd: int = 1000) -> admin_pb2.Placement:
    """A placement with a price."""
    price = common_pb2.Price(
        input_nanousd_per_million_tokens=price_nanousd, output_nanousd_per_million_tokens=price_nanousd
    )
    return admin_pb2.Placement(node=node, price=price)


def deployment(name: str = "", model: str = "smollm2", price_nanousd: int = 1000) -> admin_pb2.Deployment:
    """A deployment that is valid."""
    return admin_pb2.Deployment(
        name=f"deployments/{name}" if name else "",
        model=model,
        engine="echo",
        settings=admin_pb2.EngineSettings(environment={"B": "2", "A": "1"}),
        placements=[placement(price_nanousd=price_nanousd)],
    )


async def error_of(call: Awaitable[object]) -> EnginehouseError:
    """The error of ours that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


@asynccontextmanager
async def running(
    database_url: str,
    *,
    clock: ManualClock | None = None,
    store: MemoryStore | None = None,
    settings: ControlSettings = SETTINGS,
    reader: Callable[[str], AccessRecord | None] = read_line,
) -> AsyncIterator[Harness]:
    """A control on that database, with clients."""
    async with AsyncExitStack() as stack:
        # not pytest's own folder: with a test's name in it a socket's path gets too long
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enginehouse")))
        given: dict[str, Any] = {
            "clock": clock or ManualClock(),
            "events": RecordingSink(),
            "desired": store or MemoryStore(),
        }
        socket_path = folder / "control.sock"
        control = Control(
            replace(settings, database_url=database_url, socket_path=socket_path), read_line=reader, **given
        )
        started = await control.start()
        stack.push_async_callback(control.stop, grace_s=0)
        tcp = await stack.enter_async_context(channel(f"127.0.0.1:{started.port}"))
        unix = await stack.enter_async_context(channel(f"unix:{socket_path}"))
        yield Harness(
            control,
            started,
            given["clock"],
            given["events"],
            given["desired"],
            ledger_pb2_grpc.LedgerServiceStub(tcp),
            admin_pb2_grpc.AdminServiceStub(unix),
            admin_pb2_grpc.AdminServiceStub(tcp),
        )

"""The simulated control process: the real ledger and the real admin service over a database that survives it."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress

from enginehouse.contract import EnginehouseError
from enginehouse.router.limits import Limit
from enginehouse.services.access_log import read_line
from enginehouse.services.control.admin import AdminService
from enginehouse.services.control.database import Database
from enginehouse.services.control.ledger import LedgerService
from enginehouse.services.control.settings import ControlSettings
from enginehouse.v1 import admin_pb2
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import STREAMS, Handler, Network, Service
from tests.simulation.scene import EPOCH_MS, ORGANIZATION, PRINCIPALS

CONTROL = "control"
SETTINGS = ControlSettings(
    database_url="sqlite://",
    term_s=20,
    longest_request_s=24,
    log_grace_s=12,
    clock_drift_s=2,
)
_LEDGER_METHODS = (
    "Enroll",
    "AcquireAllowances",
    "SettleCharges",
    "ReleaseAllowances",
    "ReportCharges",
    "WatchRecalls",
    "ShipAccessLog",
)


class VirtualClock:
    """Control's clocks: both follow virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def wall_ms(self) -> int:
        """Unix milliseconds."""
        return EPOCH_MS + round(self._loop.now_s * 1000)

    def steady_ms(self) -> int:
        """The same."""
        return self.wall_ms()


class _Operator:
    """The context of a call through the Unix socket."""

    def peer(self) -> str:
        """Who calls."""
        return "unix:"

    async def send_initial_metadata(self, _metadata: object) -> None:
        """Nobody waits for it."""


class _Events:
    """Takes events and forgets them."""

    def publish(self, kind: str, subject_id: str, what: str, payload: object) -> None:
        """Forgets one."""


class ControlHouse:
    """Starts control, kills it, and starts it again on what it left behind.

    Args:
        resolve_interval_s: how often doubts are ended.
        answered: is told of each call that was answered, before the answer leaves.
    """

    def __init__(
        self, loop: VirtualLoop, network: Network, resolve_interval_s: float, answered: Callable[[object, object], None]
    ) -> None:
        self.clock = VirtualClock(loop)
        self.ledger: LedgerService | None = None
        self.process = Process(CONTROL)
        self.process.is_dead = True
        self._admin: AdminService | None = None
        self._loop = loop
        self._network = network
        self._answered = answered
        self._resolve_interval_s = resolve_interval_s

    def boot(self) -> None:
        """A new process on the old database."""
        self.process = Process(CONTROL)
        self.process.context.run(self._build)

    def kill(self) -> None:
        """Kills it: what was answered is on disk, and nothing else is."""
        self.process.is_dead = True
        self._network.break_streams()

    async def set_cap(self, limit: Limit) -> None:
        """An operator changes a cap."""
        await self._admin_call("UpdateLimit", admin_pb2.UpdateLimitRequest(limit=_message(limit)))

    async def delete(self, limit: Limit) -> None:
        """An operator deletes a limit."""
        await self._admin_call("DeleteLimit", admin_pb2.DeleteLimitRequest(name=f"limits/{limit.id}"))

    async def create(self, limit: Limit) -> None:
        """An operator creates a limit."""
        message = _message(limit)
        message.name = ""
        await self._admin_call("CreateLimit", admin_pb2.CreateLimitRequest(limit_id=limit.id, limit=message))

    async def _admin_call(self, method: str, request: object) -> None:
        call = getattr(self._admin, method)
        await self._loop.start(self.process, call(request, _Operator()))

    def _build(self) -> None:
        database = Database(SETTINGS.database_url, events=_Events(), desired_changed=lambda: None)
        ledger = self.ledger = LedgerService(database, SETTINGS, self.clock, read_line)
        self._admin = AdminService(database, self.clock)
        handlers = {name: self._handler(ledger, name) for name in _LEDGER_METHODS if hasattr(ledger, name)}
        self._network.services[CONTROL] = Service(self.process, handlers)
        self._loop.start(self.process, self._resolve(ledger))

    def _handler(self, ledger: LedgerService, method: str) -> Handler:
        serve = getattr(ledger, method)
        if method in STREAMS:
            return lambda request: serve(request, _Operator())

        async def handle(request: object) -> object:
            answer = await serve(request, _Operator())
            self._answered(request, answer)
            return answer

        return handle

    async def _resolve(self, ledger: LedgerService) -> None:
        while True:
            with suppress(EnginehouseError):
                await ledger.resolve_doubt()
            await asyncio.sleep(self._resolve_interval_s)


def fill(connection: sqlite3.Connection, limits: tuple[Limit, ...]) -> None:
    """Writes what an operator has declared: tenants, projects, keys, a deployment of the model, and limits."""
    connection.execute("INSERT INTO organizations (id, create_ms) VALUES (?, 0)", (ORGANIZATION,))
    for tenant in sorted({principal.tenant for principal in PRINCIPALS}):
        connection.execute(
            "INSERT INTO tenants (organization, id, display_name, policy, create_ms, declared)"
            " VALUES (?, ?, '', X'', 0, 0)",
            (ORGANIZATION, tenant),
        )
        connection.execute(
            "INSERT INTO projects (organization, tenant, id, create_ms) VALUES (?, ?, 'p1', 0)", (ORGANIZATION, tenant)
        )
    for principal in PRINCIPALS:
        connection.execute(
            "INSERT INTO keys (organization, tenant, project, id, role, prefix, secret_sha256, create_ms)"
            " VALUES (?, ?, ?, ?, 1, ?, X'', 0)",
            (principal.organization, principal.tenant, principal.project, principal.key, principal.key),
        )
    for deployment in ("d0", "d1"):
        connection.execute(
            "INSERT INTO deployments (id, spec, spec_json, revision, declared) VALUES (?, ?, '{}', 1, 0)",
            (deployment, admin_pb2.Deployment(model="m").SerializeToString()),
        )
    for limit in limits:
        connection.execute(
            "INSERT INTO limits (id, scope, unit, window_kind, cap, time_zone, declared) VALUES (?, ?, ?, ?, ?, ?, 0)",
            (limit.id, limit.scope, limit.unit, limit.window, limit.cap, limit.time_zone),
        )


def _message(limit: Limit) -> admin_pb2.Limit:
    return admin_pb2.Limit(
        name=f"limits/{limit.id}",
        scope=limit.scope,
        unit=limit.unit,
        window=limit.window,
        cap=limit.cap,
        time_zone=limit.time_zone,
    )

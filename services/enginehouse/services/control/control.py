"""The control process: its parts, put together."""

import asyncio
from dataclasses import dataclass

import structlog

from enginehouse.contract import EnginehouseError
from enginehouse.services.background import Background
from enginehouse.services.control.access_logs import LineReader
from enginehouse.services.control.admin import AdminService
from enginehouse.services.control.bootstrap import DeclaredResources, apply_declared, bootstrap
from enginehouse.services.control.clock import Clock
from enginehouse.services.control.database import Database, Transaction
from enginehouse.services.control.edit import CONFIGURATION, Edit
from enginehouse.services.control.events import EventSink
from enginehouse.services.control.ledger import LedgerService
from enginehouse.services.control.policies import announce_refusal
from enginehouse.services.control.publisher import DesiredStore, Publisher
from enginehouse.services.control.settings import ControlSettings
from enginehouse.services.policies import InvalidPolicyError
from enginehouse.services.server import GrpcServer, Listen
from enginehouse.v1 import admin_pb2_grpc, ledger_pb2_grpc

_log = structlog.get_logger(__name__)

LEDGER_SERVICE = "enginehouse.v1.LedgerService"
ADMIN_SERVICE = "enginehouse.v1.AdminService"


@dataclass(frozen=True, slots=True)
class Started:
    """What the start led to.

    Attributes:
        port: the TCP port.
        admin_secret: the first admin key, on the first start of all: show it, it is stored nowhere. Otherwise None.
    """

    port: int
    admin_secret: str | None

    def __repr__(self) -> str:
        return f"Started(port={self.port})"


class Control:
    """LedgerService and AdminService over one database, the end of doubt, and the publication of desired state.

    Args:
        settings: all that can be set.
        clock: the time.
        events: takes events; must not block.
        desired: takes desired state; may be away.
        read_line: reads a line of an Envoy's access log.
    """

    def __init__(
        self,
        settings: ControlSettings,
        *,
        clock: Clock,
        events: EventSink,
        desired: DesiredStore,
        read_line: LineReader,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.database = Database(settings.database_url, events=events, desired_changed=self._desired_changed)
        self.publisher = Publisher(self.database, desired)
        self.ledger = LedgerService(self.database, settings, clock, read_line)
        self._admin = AdminService(self.database, clock, settings.jurisdictions)
        self._server: GrpcServer | None = None
        self._background = Background()

    async def start(self) -> Started:
        """Brings the schema up to date, makes what the first start makes, and serves.

        Raises:
            DependencyError: the database cannot be reached, or the address cannot be bound.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop(grace_s=0)
            raise

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """Lets running calls finish for up to `grace_s` seconds, and ends."""
        self.ledger.stop()
        if self._server is not None:
            await self._server.stop(grace_s=grace_s)
        await self._background.stop()
        await self.database.close()

    async def apply_declared(self, declared: DeclaredResources) -> None:
        """Makes declared resources what the configuration says. See `bootstrap.apply_declared`."""

        async def work(transaction: Transaction) -> None:
            edit = Edit(transaction, CONFIGURATION, self._clock.wall_ms(), self._settings.jurisdictions)
            await apply_declared(edit, declared)

        try:
            await self.database.write(work)
        except InvalidPolicyError as error:
            await announce_refusal(self.database, CONFIGURATION, error)
            raise

    def store_returned(self) -> None:
        """The desired store was away and is back: everything in it is compared."""
        self.publisher.distrust()

    async def _start(self) -> Started:
        await self.database.prepare()
        listen = Listen(self._settings.host, self._settings.port, self._settings.socket_path)
        self._server = GrpcServer(listen)
        self._server.add(LEDGER_SERVICE, ledger_pb2_grpc.add_LedgerServiceServicer_to_server, self.ledger)
        self._server.add(ADMIN_SERVICE, admin_pb2_grpc.add_AdminServiceServicer_to_server, self._admin)
        port = await self._server.start()
        # last of what may fail: the first key is told once, and not to a start that failed
        admin_secret = await self.database.write(self._bootstrap)
        self._background.start(self.publisher.run(), "publish desired state")
        self._background.start(self._resolve(), "resolve doubt")
        return Started(port, admin_secret)

    def _desired_changed(self) -> None:
        self.publisher.mark_behind()

    async def _bootstrap(self, transaction: Transaction) -> str | None:
        return await bootstrap(Edit(transaction, CONFIGURATION, self._clock.wall_ms()))

    async def _resolve(self) -> None:
        while True:
            try:
                await self.ledger.resolve_doubt()
            except EnginehouseError as error:
                _log.warning("doubt not resolved this time", error=error.message)
            await asyncio.sleep(self._settings.resolve_interval_s)

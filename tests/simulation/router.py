"""A simulated router: real allowances, settler and admission, in a process that forgets everything when it dies."""

import asyncio
import random
from collections.abc import Callable

from enginehouse.router import Request, View
from enginehouse.services.access_log import AccessRecord
from enginehouse.services.router.handover import Handover
from enginehouse.services.router.settlement import Settler
from enginehouse.services.router.waiting import SharedAllowances
from enginehouse.v1 import router_pb2
from tests.simulation.control import CONTROL, SETTINGS
from tests.simulation.door import Channel, make_admission
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.network import Handler, Network, Service, Stub
from tests.simulation.scene import EPOCH_MS

CHECK_TIMEOUT_MS = 1000
_CLOCK_DRIFT_MS = 1000
MARGIN_MS = CHECK_TIMEOUT_MS + _CLOCK_DRIFT_MS
_SWEEP_S = 1.0


class RouterProcess:
    """One process of a router, from its start to its death.

    Args:
        router: the router's id.
        admitted: is told of each ticket, before anything else happens.
        logged: is told of each access log entry that arrives, before it is taken in.
    """

    def __init__(
        self,
        router: str,
        loop: VirtualLoop,
        network: Network,
        rng: random.Random,
        view: View,
        admitted: Callable[["RouterProcess", Request, router_pb2.Ticket], None],
        logged: Callable[["RouterProcess", AccessRecord], None],
    ) -> None:
        self.router = router
        self.process = Process(router)
        self._first_view = view
        self._loop = loop
        self._network = network
        self._boot_offset_ms = rng.randint(0, 10**9)
        self._skew_ms = rng.randint(-3_600_000, 3_600_000)
        self._admitted = admitted
        self._told = logged
        self._gone: set[str] = set()
        self.process.context.run(self._build)

    @property
    def view(self) -> View:
        """What it decides on now."""
        return self._deliberation.view

    @view.setter
    def view(self, view: View) -> None:
        self._deliberation.view = view

    def boot_ms(self) -> int:
        """The boot-time clock: it counts while the process is stopped."""
        return self._boot_offset_ms + round(self._loop.now_s * 1000)

    def wall_ms(self) -> int:
        """The wall clock, which nobody set."""
        return EPOCH_MS + self._skew_ms + round(self._loop.now_s * 1000)

    def kill(self) -> None:
        """Kills it."""
        self.process.is_dead = True
        self._network.break_streams()

    def _build(self) -> None:
        stub = Stub(self._network, self.router, CONTROL)
        self.allowances = SharedAllowances(
            stub,  # type: ignore[arg-type]
            router=self.router,
            boot_ms=self.boot_ms,
            margin_ms=MARGIN_MS,
        )
        self._handover = Handover(
            self.allowances.client,
            router=self.router,
            open_channel=lambda owner: Channel(self._network, self.router, owner),  # type: ignore[arg-type,return-value]
        )
        self.settler = Settler(
            self.allowances,
            publish=lambda *_event: None,
            boot_ms=self.boot_ms,
            longest_ms=round(SETTINGS.longest_request_s * 1000) + CHECK_TIMEOUT_MS,
            foreign=self._handover.take,
        )
        self._admission, self._deliberation = make_admission(
            self.router, self.allowances, self.settler, self.boot_ms, self.wall_ms
        )
        self._deliberation.view = self._first_view
        handlers: dict[str, Handler] = {
            "check": self._check,
            "hung_up": self._hung_up,
            "logged": self._logged,
            "connected": self._connected,
            "Settle": self._settle,
        }
        self._network.services[self.router] = Service(self.process, handlers)
        self._loop.start(self.process, self._live())
        self._loop.start(self.process, self._handover.run())

    async def _live(self) -> None:
        await self.allowances.start()
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.settler.sweep()

    async def _check(self, asked: tuple[str, Request]) -> router_pb2.Ticket | None:
        check, request = asked
        ticket = (await self._admission.admit(request)).ticket
        if ticket is not None:
            self._admitted(self, request, ticket)
            if check in self._gone:  # as `RouterApp` does when Envoy no longer waits
                self.settler.release(request.id)
                return None
        return ticket

    async def _hung_up(self, check: str) -> None:
        self._gone.add(check)

    async def _logged(self, record: AccessRecord) -> None:
        self._told(self, record)
        self.settler.logged(record)

    async def _connected(self, envoy: str) -> None:
        self.allowances.follow_envoy(envoy)

    async def _settle(self, report: router_pb2.SettleRequest) -> router_pb2.SettleResponse:
        settlement = self.settler.reported(report)
        return router_pb2.SettleResponse(first=settlement is not None)

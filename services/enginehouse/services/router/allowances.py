"""A router's allowances: leased from control in chunks, so that holding is an operation in memory.

Whatever is asked of the ledger is asked in the background or by those who wait for it; a request whose limits have
headroom never waits.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import structlog

from enginehouse.contract import DependencyError, EnginehouseError, InternalError, Reason
from enginehouse.router import Need
from enginehouse.router.limits import Book, Due, Held
from enginehouse.services.background import Background
from enginehouse.services.router.lease_groups import Exhausted, Group, LeaseGroups, Waiter
from enginehouse.services.router.ledger_client import LedgerClient, is_stale
from enginehouse.services.router.pace import Pace
from enginehouse.v1 import ledger_pb2, ledger_pb2_grpc

__all__ = ["Allowances", "Exhausted"]

_log = structlog.get_logger(__name__)
_FLUSH_S = 0.05
_RETRY_S = 0.5
_DUES_MAX = 1000
_ENVOYS_MAX = 1000
_TICK_S = 1.0
_IDLE_MS = 30_000
_SCARCE_MS = 2_000
"""For so long after a recall what becomes free of that limit is given back at once."""

_LOW_DIVISOR = 4
"""More is leased in the background when a quarter of the last chunk is left."""


class Allowances:
    """The book, and its dealings with the ledger.

    When the ledger knows a newer process of this router, this one stops holding at once, and one of its background
    tasks fails: that ends the process, and its supervisor starts it anew.

    Args:
        ledger: control's LedgerService.
        router: this router's id.
        boot_ms: a clock that never jumps and counts through suspension (CLOCK_BOOTTIME), in milliseconds.
        margin_ms: how long before the end of a term holding stops: the check's timeout and what clocks may drift.
        tick_s: pause between two looks at what ends, lies idle, or was not answered.
    """

    def __init__(
        self,
        ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub",
        *,
        router: str,
        boot_ms: Callable[[], int],
        margin_ms: int,
        tick_s: float = _TICK_S,
    ) -> None:
        self.book = Book()
        self._client = LedgerClient(ledger, router)
        self._router = router
        self._boot_ms = boot_ms
        self._margin_ms = margin_ms
        self._tick_s = tick_s
        self._is_stale = False
        self._waiting = LeaseGroups()
        self._unanswered: dict[str, ledger_pb2.AcquireAllowancesRequest] = {}
        self._releases: dict[str, ledger_pb2.ReleaseAllowancesRequest] = {}
        self._dues: deque[Due] = deque()
        self._dues_max = _DUES_MAX
        self._dues_taken = self._dues_settled = 0
        self._pace = Pace()
        self._uids: dict[str, int] = {}
        self._low: dict[str, int] = {}
        self._scarce_until_ms: dict[str, int] = {}
        self._wanting: set[str] = set()
        self._envoys: set[str] = set()
        self._want = asyncio.Event()
        self._due = asyncio.Event()
        self._background = Background()

    @property
    def fence(self) -> int:
        """The fencing number. 0: the ledger has not given it yet."""
        return self._client.fence

    @property
    def identity(self) -> tuple[str, int]:
        """This router process: the router's id and the fencing number."""
        return self._router, self.fence

    @property
    def is_enrolled(self) -> bool:
        """Whether the ledger has given this process its fencing number."""
        return self.fence > 0

    @property
    def client(self) -> LedgerClient:
        """This process's calls to the ledger."""
        return self._client

    async def start(self) -> None:
        """Begins to enroll, lease and settle; returns at once."""
        for work, name in (
            (self._flush(), "settle"),
            (self._keep(), "keep"),
            (self._top_up(), "top up"),
            (self._answer_recalls(), "give back recalled"),
        ):
            self._background.start(work, f"{name} allowances")

    async def stop(self) -> None:
        """Settles what is due and gives back what is free, if the ledger answers at once; then ends."""
        await self._background.stop()
        if self.is_enrolled:
            with contextlib.suppress(EnginehouseError):
                await self._settle_dues()
            with contextlib.suppress(EnginehouseError):
                self._give_back([share.id for share in self.book.shares()])
                await self._send_releases()

    def headroom(self, limit: str) -> int:
        """What can be held of `limit` now."""
        return self.book.headroom(limit, self._boot_ms())

    def hold(self, request_id: str, amounts: Mapping[str, int]) -> tuple[Held, ...]:
        """Holds every amount, or raises and holds nothing. See `Book.hold`."""
        now_ms = self._boot_ms()
        held = self.book.hold(request_id, amounts, now_ms)
        for limit, amount in amounts.items():
            share = self.book.usable(limit, now_ms)
            if share is None:
                continue
            self._pace.used(limit, share.window_start_ms, amount, now_ms)
            if share.free < self._low.get(limit, 0):
                del self._low[limit]
                self._wanting.add(limit)
                self._want.set()
        return held

    def settle(self, request_id: str, used: Mapping[str, int], deployment: str = "") -> int:
        """Ends a request's holds and queues what it owes. Returns how many limits it owes.

        Args:
            request_id: whose holds.
            used: by limit, in its unit.
            deployment: id of the one that did the work. Empty: it is not known.
        """
        dues = self.book.settle(request_id, used, deployment)
        self._dues.extend(dues)
        self._dues_taken += len(dues)
        if dues or self._scarce_until_ms:
            self._due.set()
        return len(dues)

    async def until_settled(self) -> None:
        """Returns once the ledger has taken everything that is owed now."""
        taken = self._dues_taken
        while self._dues_settled < taken:
            await asyncio.sleep(_FLUSH_S)

    def retain(self, limits: Mapping[str, int]) -> None:
        """Stops holding in shares of limits that are gone, or were replaced by another of their name.

        Args:
            limits: uids of the limits that there are, by id.
        """
        for limit, uid in list(self._uids.items()):
            if limits.get(limit, 1 << 63) > uid:
                self._end_shares(limit)
                del self._uids[limit]

    def follow_envoy(self, envoy: str) -> None:
        """Has the ledger know an Envoy that this router decides for, before its access log is heard of.

        Args:
            envoy: Envoy's node id, which differs for every start.
        """
        if len(self._envoys) < _ENVOYS_MAX:
            self._envoys.add(envoy)

    async def acquire(self, needs: Sequence[Need]) -> Exhausted | None:
        """Leases at least `needs`, if the ledger has it, or can have it from other routers.

        Returns:
            None when it is worth asking again; otherwise the limit that has too little left.

        Raises:
            DependencyError: control does not answer (CONTROL_UNAVAILABLE), or too many wait.
        """
        if self._is_stale:
            raise _unavailable("this router has been replaced")
        group = self._waiting.group(needs)
        waiter = group.enter(needs)
        if not group.is_served:
            group.is_served = True
            self._background.start(self._serve(group), "lease allowances")
        return await waiter.answer

    async def _serve(self, group: Group) -> None:
        """Leases for one group until nobody waits in it."""
        try:
            while waiters := group.leave():
                shortage = await self._lease(group, waiters)
                for waiter in waiters:
                    waiter.tell(shortage, self.headroom)
                if shortage is not None:
                    await group.pause()
        finally:
            for waiter in group.leave():
                waiter.fail(_unavailable("this router ends"))
            self._waiting.close(group)

    async def _lease(self, group: Group, waiters: Sequence[Waiter]) -> Exhausted | None:
        least, wanted = group.demand(waiters, self.headroom)
        try:
            return await self._acquire(_demands(least, wanted)) if any(least.values()) else None
        except EnginehouseError as error:
            for waiter in waiters:
                waiter.fail(_unavailable(error.reason.name))
            self._check_stale(error)
            return None
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.fail(_unavailable("this router ends"))
            raise

    async def _acquire(self, demands: Sequence[ledger_pb2.AllowanceDemand]) -> Exhausted | None:
        await self._client.enroll()
        await self._ask_again({demand.limit for demand in demands})
        return await self._ask(self._client.acquisition(str(uuid.uuid4()), demands))

    async def _ask_again(self, limits: Set[str] | None = None) -> None:
        """Asks again what was never answered, about all of `limits` or about any."""
        for request in list(self._unanswered.values()):
            is_about = limits is None or limits == {demand.limit for demand in request.demands}
            # Taken out before it is asked: an answer that two have waited for must come into the book once.
            if is_about and self._unanswered.pop(request.acquisition_id, None) is not None:
                await self._ask(request)

    async def _ask(self, request: ledger_pb2.AcquireAllowancesRequest) -> Exhausted | None:
        asked_ms = self._boot_ms()
        try:
            answer = await self._client.acquire(request)
        except (DependencyError, asyncio.CancelledError):
            # Until there is an answer the ledger may have leased something that nobody here knows of.
            self._unanswered[request.acquisition_id] = request
            raise
        wanted = {demand.limit: max(demand.amount_min, demand.amount_want) for demand in request.demands}
        for allowance in answer.allowances:
            self._take(allowance, wanted[allowance.limit], asked_ms)
        shortages = [
            Exhausted(
                short.limit,
                short.amount_left,
                self._boot_ms(),
                short.window_left.ToMilliseconds() / 1000 if short.HasField("window_left") else None,
            )
            for short in answer.shortages
        ]
        return shortages[0] if shortages else None

    def _take(self, allowance: ledger_pb2.Allowance, wanted: int, asked_ms: int) -> None:
        known_uid = self._uids.get(allowance.limit, allowance.limit_uid)
        if self._is_stale or allowance.limit_uid < known_uid:
            return  # of a limit that is gone; the ledger forgot it with the limit
        if allowance.limit_uid > known_uid:
            self._end_shares(allowance.limit)
        self._uids[allowance.limit] = allowance.limit_uid
        # Counted from before the question, so that the answer's way here can only shorten the share's life; but to its
        # beginning from now, so that a window that is yet to begin is never held in too early.
        usable_until_ms = asked_ms + allowance.term.ToMilliseconds() - self._margin_ms
        window_until_ms = asked_ms + allowance.window_left.ToMilliseconds()
        has_window = allowance.HasField("window_left")
        is_ahead = allowance.HasField("window_starts_in")
        self.book.add(
            share=allowance.id,
            limit=allowance.limit,
            window_start_ms=allowance.window_start.ToMilliseconds() if allowance.HasField("window_start") else 0,
            amount=allowance.amount,
            usable_until_ms=min(usable_until_ms, window_until_ms) if has_window else usable_until_ms,
            usable_from_ms=self._boot_ms() + allowance.window_starts_in.ToMilliseconds() if is_ahead else 0,
            window_until_ms=window_until_ms if has_window else None,
        )
        if allowance.amount > wanted and not is_ahead:
            self._low[allowance.limit] = allowance.amount // _LOW_DIVISOR

    async def _top_up(self) -> None:
        while True:
            await self._want.wait()
            self._want.clear()
            while self._wanting:
                limit = self._wanting.pop()
                with self._ledger_may_be_away():
                    await self._acquire(_demands({limit: 0}, {limit: 1}))

    async def _flush(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(_FLUSH_S)
            try:
                self._give_back(self._scarce_shares())
                await self._settle_dues()
                await self._send_releases()
            except EnginehouseError as error:
                self._check_stale(error)
                _log.warning("charges wait for control", waiting=len(self._dues), error=error.message)
                await asyncio.sleep(_RETRY_S)

    async def _settle_dues(self) -> None:
        while self._dues:
            batch = [self._dues[index] for index in range(min(self._dues_max, len(self._dues)))]
            try:
                await self._client.settle([_charge(due) for due in batch])
            except DependencyError:
                raise
            except EnginehouseError as error:
                # One that is refused must not hold up the others: find it, and leave it to the access log.
                if len(batch) > 1:
                    self._dues_max = len(batch) // 2
                    continue
                _log.error("charge refused", request_id=batch[0].request_id, error=error.message)
            self._dues_max = _DUES_MAX
            for _ in batch:
                self._dues.popleft()
            self._dues_settled += len(batch)
        self._due.clear()

    async def _keep(self) -> None:
        while True:
            with self._ledger_may_be_away():
                await self._client.enroll()
                for envoy in list(self._envoys):
                    await self._client.know_envoy(envoy)
                    self._envoys.discard(envoy)
                await self._ask_again()
                self._pace.forget(self._boot_ms() - _IDLE_MS)
                await self._prolong()
                await self._lease_ahead()
                self._give_back(self._idle_shares())
                await self._send_releases()
                self.book.forget_spent(self._boot_ms())
            await asyncio.sleep(self._tick_s)

    async def _prolong(self) -> None:
        """Prolongs what is in use and ends with its term, in the second half of that."""
        now_ms = self._boot_ms()
        for limit in self._pace.limits():
            share = self.book.usable(limit, now_ms)
            if share and share.ends_by_term and share.usable_until_ms - now_ms < self._client.term_ms // 2:
                await self._acquire(_demands({limit: 0}, {limit: 0}))

    async def _lease_ahead(self) -> None:
        """Leases of the windows that begin within the term, so that they can begin while control is away."""
        now_ms, term_ms = self._boot_ms(), self._client.term_ms
        for limit in self._pace.limits():
            share = self.book.usable(limit, now_ms)
            amount = self._pace.due_ahead(share, now_ms, term_ms) if share else 0
            if share and amount:
                await self._acquire([ledger_pb2.AllowanceDemand(limit=limit, amount_ahead=amount)])
                self._pace.leased_ahead(share, now_ms, term_ms)

    async def _answer_recalls(self) -> None:
        while True:
            with self._ledger_may_be_away():
                await self._client.enroll()
                async for recall in self._client.recalls():
                    await self._answer_recall(recall)
            await asyncio.sleep(self._tick_s)

    async def _answer_recall(self, recall: ledger_pb2.WatchRecallsResponse) -> None:
        shares = []
        for part in recall.limits:
            self._scarce_until_ms[part.limit] = self._boot_ms() + _SCARCE_MS
            self._low.pop(part.limit, None)
            start_ms = part.window_start.ToMilliseconds() if part.HasField("window_start") else 0
            shares += [share.id for share in self.book.shares_of(part.limit) if share.window_start_ms == start_ms]
        self._give_back(shares, [recall.recall])
        await self._send_releases()

    def _idle_shares(self) -> list[str]:
        now_ms = self._boot_ms()
        return [
            share.id
            for share in self.book.shares()
            if share.free > 0 and (now_ms >= share.usable_until_ms or not self._pace.is_used(share.limit))
        ]

    def _scarce_shares(self) -> list[str]:
        now_ms = self._boot_ms()
        for limit, until_ms in list(self._scarce_until_ms.items()):
            if now_ms >= until_ms:
                del self._scarce_until_ms[limit]
        return [
            share.id
            for limit in self._scarce_until_ms
            if not self._waiting.needs(limit)
            for share in self.book.shares_of(limit)
            if share.is_usable(now_ms)
        ]

    def _give_back(self, shares: Sequence[str], recalls: Sequence[str] = ()) -> None:
        returns = [
            ledger_pb2.AllowanceReturn(allowance=share, amount=amount)
            for share in shares
            if (amount := self.book.take_free(share))
        ]
        if returns or recalls:
            # Out of the book before the call, and the same call until it is answered: nobody holds in it meanwhile.
            release_id = str(uuid.uuid4())
            self._releases[release_id] = self._client.release(release_id, returns, recalls)

    async def _send_releases(self) -> None:
        for release_id, request in list(self._releases.items()):
            await self._client.send_release(request)
            self._releases.pop(release_id, None)

    def _end_shares(self, limit: str) -> None:
        for share in self.book.shares_of(limit):
            self.book.end(share.id)

    @contextlib.contextmanager
    def _ledger_may_be_away(self) -> Iterator[None]:
        try:
            yield
        except EnginehouseError as error:
            self._check_stale(error)
            _log.debug("ledger does not answer", error=error.message)

    def _check_stale(self, error: EnginehouseError) -> None:
        """Ends this process's part when the ledger knows a newer one.

        Raises:
            InternalError: it does, and this is the first to know.
        """
        if not is_stale(error) or self._is_stale:
            return
        self._is_stale = True
        for share in self.book.shares():
            self.book.end(share.id)
        _log.critical("a newer process of this router has enrolled; this one holds nothing more and ends")
        raise InternalError(f"stale fence {self.fence}: {error.message}") from error


def _demands(least: Mapping[str, int], wanted: Mapping[str, int]) -> list[ledger_pb2.AllowanceDemand]:
    return [
        ledger_pb2.AllowanceDemand(limit=limit, amount_min=least[limit], amount_want=wanted[limit])
        for limit in sorted(least)
    ]


def _charge(due: Due) -> ledger_pb2.Charge:
    return ledger_pb2.Charge(
        request_id=due.request_id,
        limit=due.limit,
        allowance=due.share,
        amount=due.amount,
        overrun=due.overrun,
        deployment=due.deployment,
    )


def _unavailable(why: str) -> DependencyError:
    return DependencyError(
        "control does not answer and this router's allowance is used up; try again soon",
        Reason.CONTROL_UNAVAILABLE,
        metadata={"why": why},
        retry_after_s=_RETRY_S * 2,
    )

"""A router's allowances: leased from control in chunks, so that holding is an operation in memory.

Whatever is asked of the ledger is asked in the background or by those who wait for it; a request whose limits have
headroom never waits.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import structlog
from google.protobuf import duration_pb2

from enginehouse.contract import DependencyError, Reason
from enginehouse.router import Need
from enginehouse.router.limits import Book, Due, Held
from enginehouse.services.background import Background
from enginehouse.v1 import ledger_pb2, ledger_pb2_grpc

_log = structlog.get_logger(__name__)
_CALL_TIMEOUT_S = 5.0
_FLUSH_S = 0.05
_RETRY_S = 0.5
_DUES_MAX = 1000
_EXHAUSTED_MS = 100
_TICK_S = 1.0
_IDLE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The ledger had less left of a limit than was needed. Times are on the router's boot-time clock."""

    limit: str
    left: int
    seen_ms: int
    retry_after_s: float | None


@dataclass(slots=True)
class _Waiter:
    needs: Mapping[str, int]
    answer: asyncio.Future[Exhausted | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Allowances:
    """The book, and its dealings with the ledger.

    Args:
        ledger: control's LedgerService.
        router: this router's id.
        boot_ms: a clock that never jumps and counts through suspension (CLOCK_BOOTTIME), in milliseconds.
        margin_ms: how long before the end of a term holding stops: the check's timeout and what clocks may drift.
    """

    def __init__(
        self,
        ledger: "ledger_pb2_grpc.LedgerServiceAsyncStub",
        *,
        router: str,
        boot_ms: Callable[[], int],
        margin_ms: int,
    ) -> None:
        self.book = Book()
        self.fence = 0
        self._ledger = ledger
        self._router = router
        self._boot_ms = boot_ms
        self._margin_ms = margin_ms
        self._term_ms = 0
        self._waiting: deque[_Waiter] = deque()
        self._exhausted: dict[str, Exhausted] = {}
        self._dues: deque[Due] = deque()
        self._used_ms: dict[str, int] = {}
        self._enrolling = asyncio.Lock()
        self._wake = asyncio.Event()
        self._due = asyncio.Event()
        self._background = Background()

    @property
    def is_enrolled(self) -> bool:
        """Whether the ledger has given this process its fencing number."""
        return self.fence > 0

    async def start(self) -> None:
        """Begins to enroll, lease and settle; returns at once."""
        for work, name in ((self._lease, "lease"), (self._flush, "settle"), (self._keep, "keep")):
            self._background.start(work(), f"{name} allowances")

    async def stop(self) -> None:
        """Settles what is due and gives back what is free, if the ledger answers at once; then ends."""
        await self._background.stop()
        if self.is_enrolled:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._settle_dues()
                await self._release([share.id for share in self.book.shares()])

    def headroom(self, limit: str) -> int:
        """What can be held of `limit` now."""
        return self.book.headroom(limit, self._boot_ms())

    def hold(self, request_id: str, amounts: Mapping[str, int]) -> tuple[Held, ...]:
        """Holds every amount, or raises and holds nothing. See `Book.hold`."""
        now_ms = self._boot_ms()
        held = self.book.hold(request_id, amounts, now_ms)
        for limit in amounts:
            self._used_ms[limit] = now_ms
        return held

    def settle(self, request_id: str, used: Mapping[str, int]) -> int:
        """Ends a request's holds and queues what it owes. Returns how many limits it owes."""
        dues = self.book.settle(request_id, used)
        self._dues.extend(dues)
        if dues:
            self._due.set()
        return len(dues)

    async def acquire(self, needs: Sequence[Need]) -> Exhausted | None:
        """Leases at least `needs`, if the ledger has it.

        Returns:
            None when it is worth asking again; otherwise the limit that has too little left.

        Raises:
            DependencyError: control does not answer (CONTROL_UNAVAILABLE).
        """
        now_ms = self._boot_ms()
        for need in needs:
            known = self._exhausted.get(need.limit)
            if (
                known
                and now_ms - known.seen_ms < _EXHAUSTED_MS
                and need.amount > self.headroom(need.limit) + known.left
            ):
                return known
        waiter = _Waiter({need.limit: need.amount for need in needs})
        self._waiting.append(waiter)
        self._wake.set()
        return await waiter.answer

    async def _lease(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                group = self._next_group()
                least, wanted = _demand(group, self.headroom)
                try:
                    shortage = await self._acquire(least, wanted) if any(least.values()) else None
                except grpc.aio.AioRpcError as error:
                    _fail(group, error)
                    continue
                _answer(group, shortage, self.headroom)

    def _next_group(self) -> list[_Waiter]:
        limits = self._waiting[0].needs.keys()
        group = [waiter for waiter in self._waiting if waiter.needs.keys() == limits and not waiter.answer.done()]
        self._waiting = deque(waiter for waiter in self._waiting if waiter.needs.keys() != limits)
        return group

    async def _acquire(self, least: Mapping[str, int], wanted: Mapping[str, int]) -> Exhausted | None:
        await self._enroll()
        asked_ms = self._boot_ms()
        answer = await self._ledger.AcquireAllowances(
            ledger_pb2.AcquireAllowancesRequest(
                router=self._router,
                fence=self.fence,
                acquisition_id=str(uuid.uuid4()),
                demands=[
                    ledger_pb2.AllowanceDemand(limit=limit, amount_min=least[limit], amount_want=wanted[limit])
                    for limit in sorted(least)
                ],
            ),
            timeout=_CALL_TIMEOUT_S,
        )
        for allowance in answer.allowances:
            self._take(allowance, asked_ms)
        for shortage in answer.shortages:
            retry_after_s = _milliseconds(shortage.window_left) / 1000 if shortage.HasField("window_left") else None
            self._exhausted[shortage.limit] = Exhausted(
                shortage.limit, shortage.amount_left, self._boot_ms(), retry_after_s
            )
        return self._exhausted[answer.shortages[0].limit] if answer.shortages else None

    def _take(self, allowance: ledger_pb2.Allowance, asked_ms: int) -> None:
        # Counted from before the question, so that the answer's way here can only shorten the share's life.
        usable_until_ms = asked_ms + _milliseconds(allowance.term) - self._margin_ms
        if allowance.HasField("window_left"):
            usable_until_ms = min(usable_until_ms, asked_ms + _milliseconds(allowance.window_left))
        self.book.add(
            share=allowance.id,
            limit=allowance.limit,
            window_start_ms=allowance.window_start.ToMilliseconds() if allowance.HasField("window_start") else 0,
            amount=allowance.amount,
            usable_until_ms=usable_until_ms,
        )
        self._exhausted.pop(allowance.limit, None)

    async def _enroll(self) -> None:
        async with self._enrolling:  # a second number would make the first one stale
            if self.is_enrolled:
                return
            answer = await self._ledger.Enroll(ledger_pb2.EnrollRequest(router=self._router), timeout=_CALL_TIMEOUT_S)
            self.fence = answer.fence
            self._term_ms = _milliseconds(answer.term)
            _log.info("enrolled with the ledger", router=self._router, fence=self.fence)

    async def _flush(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(_FLUSH_S)
            try:
                await self._settle_dues()
            except grpc.aio.AioRpcError as error:
                _log.warning("charges wait for control", waiting=len(self._dues), code=error.code().name)
                await asyncio.sleep(_RETRY_S)

    async def _settle_dues(self) -> None:
        while self._dues:
            batch = [self._dues[index] for index in range(min(_DUES_MAX, len(self._dues)))]
            charges = [
                ledger_pb2.Charge(
                    request_id=due.request_id,
                    limit=due.limit,
                    allowance=due.share,
                    amount=due.amount,
                    overrun=due.overrun,
                )
                for due in batch
            ]
            await self._ledger.SettleCharges(
                ledger_pb2.SettleChargesRequest(router=self._router, fence=self.fence, charges=charges),
                timeout=_CALL_TIMEOUT_S,
            )
            for _ in batch:
                self._dues.popleft()
        self._due.clear()

    async def _keep(self) -> None:
        while True:
            try:
                await self._enroll()
                await self._prolong()
                await self._release(self._idle_shares())
                self.book.forget_spent(self._boot_ms())
            except grpc.aio.AioRpcError as error:
                _log.debug("ledger does not answer", code=error.code().name)
            await asyncio.sleep(_TICK_S)

    async def _prolong(self) -> None:
        now_ms = self._boot_ms()
        ending = {
            share.limit
            for share in self.book.shares()
            if share.usable_until_ms - now_ms < self._term_ms // 2
            and (share.held or now_ms - self._used_ms.get(share.limit, 0) < _IDLE_MS)
            and self.book.headroom(share.limit, now_ms) >= 0
            and now_ms < share.usable_until_ms
        }
        for limit in sorted(ending):
            await self._acquire({limit: 0}, {limit: 0})

    def _idle_shares(self) -> list[str]:
        now_ms = self._boot_ms()
        return [
            share.id
            for share in self.book.shares()
            if share.free > 0
            and (now_ms >= share.usable_until_ms or now_ms - self._used_ms.get(share.limit, 0) >= _IDLE_MS)
        ]

    async def _release(self, shares: Sequence[str]) -> None:
        returns = {share: self.book.take_free(share) for share in shares}
        if any(returns.values()):
            # Out of the book before the call: if the answer is lost, the share's end frees it, and nobody holds in it.
            await self._ledger.ReleaseAllowances(
                ledger_pb2.ReleaseAllowancesRequest(
                    router=self._router,
                    fence=self.fence,
                    returns=[
                        ledger_pb2.AllowanceReturn(allowance=share, amount=amount)
                        for share, amount in returns.items()
                        if amount
                    ],
                ),
                timeout=_CALL_TIMEOUT_S,
            )


def _demand(group: Sequence[_Waiter], headroom: Callable[[str], int]) -> tuple[dict[str, int], dict[str, int]]:
    """The least that helps the first in the group, and what would help them all."""
    least: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for limit, amount in group[0].needs.items() if group else ():
        free = headroom(limit)
        least[limit] = max(0, amount - free)
        wanted[limit] = max(0, sum(waiter.needs[limit] for waiter in group) - free)
    return least, wanted


def _answer(group: Sequence[_Waiter], shortage: Exhausted | None, headroom: Callable[[str], int]) -> None:
    for waiter in group:
        if waiter.answer.done():
            continue
        is_short = shortage is not None and waiter.needs[shortage.limit] > headroom(shortage.limit) + shortage.left
        waiter.answer.set_result(shortage if is_short else None)


def _fail(group: Sequence[_Waiter], error: grpc.aio.AioRpcError) -> None:
    for waiter in group:
        if not waiter.answer.done():
            waiter.answer.set_exception(
                DependencyError(
                    "control does not answer and this router's allowance is used up; try again soon",
                    Reason.CONTROL_UNAVAILABLE,
                    metadata={"code": error.code().name},
                    retry_after_s=_RETRY_S * 2,
                )
            )


def _milliseconds(duration: duration_pb2.Duration) -> int:
    return duration.ToMilliseconds()

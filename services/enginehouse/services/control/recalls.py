"""Recalls: asks routers for what they leased and do not hold, before another one is refused."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from enginehouse.services.control.accounts import AccountKey
from enginehouse.services.control.durations import timestamp_of_ms
from enginehouse.v1 import ledger_pb2

RECALL_S = 0.25
"""The longest that a refusal is put off. A router that is well answers within a round trip."""

_WAITING_MAX = 1000


@dataclass(slots=True)
class Recall:
    """One recall: who has not answered yet, and word of every answer."""

    id: str
    unanswered: set[int]
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def next_answer(self) -> None:
        """Waits until somebody answers."""
        await self._answered.wait()
        self._answered.clear()

    def answered(self, fence: int) -> None:
        """A router process has given back what it can."""
        self.unanswered.discard(fence)
        self._answered.set()


class Recalls:
    """The router processes that listen, by fence, and the recalls that are under way. In memory: they end in moments.

    One that did not answer in time is not asked again before it does, so that a process that is stopped delays one
    refusal and not all of them.
    """

    def __init__(self) -> None:
        self._listeners: dict[int, asyncio.Queue[ledger_pb2.WatchRecallsResponse | None]] = {}
        self._open: dict[str, Recall] = {}
        self._late: dict[int, set[str]] = {}
        self._numbers = itertools.count(1)

    def who_answers(self, asker: int) -> set[int]:
        """The processes that can be asked on behalf of `asker`."""
        return {fence for fence in self._listeners if fence != asker and not self._late.get(fence)}

    async def listen(self, fence: int) -> AsyncGenerator[ledger_pb2.WatchRecallsResponse, None]:
        """The recalls that a router process must answer, until it leaves or `stop`. A second listener replaces it."""
        queue: asyncio.Queue[ledger_pb2.WatchRecallsResponse | None] = asyncio.Queue(_WAITING_MAX)
        self._end(fence)
        self._listeners[fence] = queue
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            if self._listeners.get(fence) is queue:
                self._end(fence)

    def ask(self, fences_by_account: Mapping[AccountKey, Collection[int]]) -> Recall:
        """Begins a recall. End it with `over`."""
        recall = Recall(f"r{next(self._numbers)}", set())
        for fence in sorted({fence for fences in fences_by_account.values() for fence in fences}):
            queue = self._listeners.get(fence)
            if queue is not None and not queue.full():
                recall.unanswered.add(fence)
                keys = [key for key, fences in fences_by_account.items() if fence in fences]
                queue.put_nowait(_message(recall.id, keys))
        self._open[recall.id] = recall
        return recall

    def over(self, recall: Recall) -> None:
        """Ends a recall. Who has not answered is late."""
        del self._open[recall.id]
        for fence in recall.unanswered:
            self._late.setdefault(fence, set()).add(recall.id)

    def answered(self, fence: int, recalls: Iterable[str]) -> None:
        """A router process has answered."""
        for recall_id in recalls:
            self._late.get(fence, set()).discard(recall_id)
            recall = self._open.get(recall_id)
            if recall is not None:
                recall.answered(fence)

    def stop(self) -> None:
        """Ends every listener's stream."""
        for fence in list(self._listeners):
            self._end(fence)

    def _end(self, fence: int) -> None:
        queue = self._listeners.pop(fence, None)
        self._late.pop(fence, None)
        for recall in self._open.values():
            if fence in recall.unanswered:
                recall.answered(fence)
        if queue is not None:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)


def _message(recall_id: str, keys: Iterable[AccountKey]) -> ledger_pb2.WatchRecallsResponse:
    message = ledger_pb2.WatchRecallsResponse(recall=recall_id)
    for key in keys:
        part = message.limits.add(limit=key.limit)
        if key.window_start_ms:
            part.window_start.CopyFrom(timestamp_of_ms(key.window_start_ms))
    return message

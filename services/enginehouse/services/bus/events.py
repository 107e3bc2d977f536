"""Events: CloudEvents 1.0 in NATS binary mode, on the stream EVENTS. Hints and history; the registry is the truth."""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
import structlog
from google.protobuf import json_format
from google.protobuf.message import Message
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from enginehouse.services.background import Background
from enginehouse.services.bus.connection import Bus

STREAM = "EVENTS"
SUBJECTS = "enginehouse.>"
_DUPLICATE_WINDOW_S = 120.0
_IN_FLIGHT_MAX = 64
_QUEUE_MAX = 10_000
_RETRY_S = 0.5
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be sent.

    Attributes:
        subject: "enginehouse.<place>.<kind>.<id>.<what>".
        headers: the CloudEvents attributes as "ce-*", and Nats-Msg-Id for deduplication.
        payload: the protobuf message's JSON form.
    """

    subject: str
    headers: dict[str, str]
    payload: bytes


def subject_of(place: str, kind: str, subject_id: str, what: str) -> str:
    """The subject of an event. The place comes second, so that a leaf node can keep it where it belongs."""
    return ".".join(("enginehouse", *(_token(part) for part in (place or "nowhere", kind, subject_id, what))))


def make_event(
    payload: Message, *, place: str, source: str, kind: str, subject_id: str, what: str, now: datetime
) -> Event:
    """An event with a new id, as the CloudEvents NATS binding's binary mode has it (1.0.3, work in progress)."""
    event_id = str(uuid.uuid4())
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": source,
        "ce-type": f"enginehouse.{kind}.{what}.v1",
        "ce-subject": subject_id,
        "ce-time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ce-dataschema": payload.DESCRIPTOR.full_name,
        "content-type": "application/json",
        "Nats-Msg-Id": event_id,
    }
    body = json_format.MessageToJson(payload, preserving_proto_field_name=True, indent=None)
    return Event(subject_of(place, kind, subject_id, what), headers, body.encode())


async def ensure_stream(bus: Bus, *, age_s: float, bytes_max: int) -> None:
    """Makes the stream EVENTS, or brings its bounds up to date."""
    config = StreamConfig(
        name=STREAM,
        subjects=[SUBJECTS],
        storage=StorageType.FILE,
        max_age=age_s,
        max_bytes=bytes_max,
        discard=DiscardPolicy.OLD,
        duplicate_window=min(_DUPLICATE_WINDOW_S, age_s),
    )
    try:
        await bus.jetstream.update_stream(config)
    except NotFoundError:
        await bus.jetstream.add_stream(config)


class EventPublisher:
    """Publishes events in the background, in order of arrival, again until each is acknowledged.

    While the server is away up to 10,000 wait; past that the oldest is dropped and counted, because an event is never
    worth a request.

    Args:
        bus: the connection.
        source: this process, as CloudEvents wants it: "/router/router-0".
        place: where this process is.
        clock: now, in UTC.
    """

    def __init__(
        self, bus: Bus, *, source: str, place: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._bus = bus
        self._source = source
        self._place = place
        self._clock = clock
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._background = Background()
        self.dropped = 0

    async def start(self) -> None:
        """Begins to publish; returns at once."""
        self._background.start(self._run(), "publish events")

    async def stop(self, *, grace_s: float = 2.0) -> None:
        """Publishes what waits, for at most `grace_s` seconds, and ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s if self._bus.is_connected else 0):
                await self._idle.wait()
        await self._background.stop()

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Queues an event and returns at once; it never raises and never waits."""
        if len(self._queue) >= _QUEUE_MAX:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(
            make_event(
                payload,
                place=self._place,
                source=self._source,
                kind=kind,
                subject_id=subject_id,
                what=what,
                now=self._clock(),
            )
        )
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await self._bus.connected()
            batch = [self._queue[index] for index in range(min(_IN_FLIGHT_MAX, len(self._queue)))]
            results = await asyncio.gather(*(self._send(event) for event in batch))
            done = results.index(False) if False in results else len(results)
            for event in batch[:done]:
                if self._queue and self._queue[0] is event:  # else it was dropped meanwhile
                    self._queue.popleft()
            if done < len(batch):
                await asyncio.sleep(_RETRY_S)

    async def _send(self, event: Event) -> bool:
        try:
            await self._bus.jetstream.publish(event.subject, event.payload, headers=event.headers)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            _log.debug("event not published yet", subject=event.subject, error=repr(error))
            return False
        return True


def _token(part: str) -> str:
    # A subject's tokens hold no dots, spaces or wildcards.
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in part) or "-"

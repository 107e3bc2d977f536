"""Events: CloudEvents 1.0 in NATS binary mode, on the stream EVENTS. Hints and history; the registry is the truth."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from google.protobuf import json_format
from google.protobuf.message import Message
from nats.js.api import DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from enginehouse.services.bus.connection import Bus
from enginehouse.services.bus.outbox import Outbox, Outgoing

STREAM = "EVENTS"
SUBJECTS = "enginehouse.>"
_DUPLICATE_WINDOW_S = 120.0


def subject_of(place: str, kind: str, subject_id: str, what: str) -> str:
    """The subject of an event. The place comes second, so that a leaf node can keep it where it belongs."""
    return ".".join(("enginehouse", *(token(part) for part in (place or "nowhere", kind, subject_id, what))))


def make_event(
    payload: Message, *, place: str, source: str, kind: str, subject_id: str, what: str, now: datetime
) -> Outgoing:
    """An event with a new id, as the CloudEvents NATS binding's binary mode has it (1.0.3, work in progress).

    Its payload is the message's JSON form.
    """
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
    return Outgoing(subject_of(place, kind, subject_id, what), headers, body.encode())


async def ensure_stream(bus: Bus, name: str, subjects: str, *, age_s: float, bytes_max: int) -> None:
    """Makes a stream, or brings its bounds up to date."""
    config = StreamConfig(
        name=name,
        subjects=[subjects],
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
    """Publishes events in the background, see `Outbox`.

    Args:
        bus: the connection.
        source: this process, as CloudEvents wants it: "/router/router-0".
        place: where this process is.
        clock: now, in UTC.
    """

    def __init__(
        self, bus: Bus, *, source: str, place: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._outbox = Outbox(bus)
        self._source = source
        self._place = place
        self._clock = clock

    async def start(self) -> None:
        """Begins to publish; returns at once."""
        await self._outbox.start()

    async def stop(self, *, grace_s: float = 2.0) -> None:
        """Publishes what waits, for at most `grace_s` seconds, and ends."""
        await self._outbox.stop(grace_s=grace_s)

    @property
    def dropped(self) -> int:
        """How many events were given up because the server was away for too long."""
        return self._outbox.dropped

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Queues an event and returns at once; it never raises and never waits."""
        self._outbox.put(
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


def token(part: str) -> str:
    """A part of a subject: it holds no dots, spaces or wildcards."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in part) or "-"

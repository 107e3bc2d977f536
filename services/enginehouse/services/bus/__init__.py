"""The event plane: NATS and JetStream, which may be away at any time."""

from enginehouse.services.bus.buckets import DESIRED, REGISTRATION_TTL_S, REGISTRATIONS, BucketStore
from enginehouse.services.bus.connection import Bus
from enginehouse.services.bus.events import (
    STREAM,
    SUBJECTS,
    Event,
    EventPublisher,
    ensure_stream,
    make_event,
    subject_of,
)
from enginehouse.services.bus.mirror import Mirror

__all__ = [
    "DESIRED",
    "REGISTRATIONS",
    "REGISTRATION_TTL_S",
    "STREAM",
    "SUBJECTS",
    "BucketStore",
    "Bus",
    "Event",
    "EventPublisher",
    "Mirror",
    "ensure_stream",
    "make_event",
    "subject_of",
]

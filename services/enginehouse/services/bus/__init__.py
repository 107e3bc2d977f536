"""The event plane: NATS and JetStream, which may be away at any time."""

from enginehouse.services.bus.buckets import DESIRED, REGISTRATION_TTL_S, REGISTRATIONS, BucketStore
from enginehouse.services.bus.connection import Bus
from enginehouse.services.bus.decisions import (
    DECISIONS_STREAM,
    DECISIONS_SUBJECTS,
    FLEET,
    POLICY,
    RECORD,
    decisions_subject,
)
from enginehouse.services.bus.events import (
    STREAM,
    SUBJECTS,
    EventPublisher,
    ensure_stream,
    make_event,
    subject_of,
)
from enginehouse.services.bus.mirror import Mirror
from enginehouse.services.bus.outbox import Outbox, Outgoing

__all__ = [
    "DECISIONS_STREAM",
    "DECISIONS_SUBJECTS",
    "DESIRED",
    "FLEET",
    "POLICY",
    "RECORD",
    "REGISTRATIONS",
    "REGISTRATION_TTL_S",
    "STREAM",
    "SUBJECTS",
    "BucketStore",
    "Bus",
    "EventPublisher",
    "Mirror",
    "Outbox",
    "Outgoing",
    "decisions_subject",
    "ensure_stream",
    "make_event",
    "subject_of",
]

"""What control tells the world, after it has happened."""

from typing import Protocol

from google.protobuf.message import Message


class EventSink(Protocol):
    """Takes events. It must not block and must not raise: an event is a hint, the database is the truth."""

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Sends one event.

        Args:
            kind: "limit" or "resource".
            subject_id: whom it is about; holds no dots.
            what: what happened, for example "threshold".
            payload: a message of events.proto.
        """

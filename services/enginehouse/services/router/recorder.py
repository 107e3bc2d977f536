"""Writes decisions down so that they can be made again: to the stream DECISIONS, with the snapshots they rest on."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from google.protobuf.message import Message

from enginehouse.router import Decision, Moment, Request, View
from enginehouse.router.replay import make_record
from enginehouse.router.snapshot import fleet_to_message
from enginehouse.services.bus import FLEET, POLICY, RECORD, Outgoing, decisions_subject
from enginehouse.v1 import admin_pb2, records_pb2

SNAPSHOT_AGAIN_MS = 3_600_000
"""A snapshot is written again after an hour, so that it never leaves the stream before a record that rests on it."""
_RULES_KEPT = 4


class Put(Protocol):
    """Queues a message; see `Outbox.put`."""

    def __call__(self, message: Outgoing) -> None:
        """Returns at once."""
        ...


class Recorder:
    """Records each decision once.

    Args:
        router: this router's id.
        place: where it is.
        put: takes the messages.
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, *, router: str, place: str, put: Put, now_ms: Callable[[], int]) -> None:
        self._router = router
        self._place = place
        self._put = put
        self._now_ms = now_ms
        self._rules: OrderedDict[str, records_pb2.PolicySnapshot] = OrderedDict()
        self._written_ms: dict[str, int] = {}

    def rules(self, version: str, entries: Mapping[str, bytes]) -> None:
        """What decisions are made by from now on, or soon."""
        self._rules[version] = policy_to_message(version, entries)
        while len(self._rules) > _RULES_KEPT:
            self._rules.popitem(last=False)

    def decided(self, decision_id: str, request: Request, view: View, moment: Moment, decision: Decision) -> None:
        """Records a decision. To be called before anything is held for it."""
        now_ms = self._now_ms()
        record = make_record(
            request, view, moment, decision, decision_id=decision_id, router=self._router, decided_at_ms=now_ms
        )
        self._snapshot(FLEET, view.fleet_version, now_ms, lambda: fleet_to_message(view))
        rules = self._rules.get(view.policy_version)
        if rules is not None:
            self._snapshot(POLICY, view.policy_version, now_ms, lambda: rules)
        self._write(RECORD, decision_id, record)

    def _snapshot(self, what: str, version: str, now_ms: int, make: Callable[[], Message]) -> None:
        key = f"{what}-{version}"
        written_ms = self._written_ms.get(key)
        if written_ms is None or now_ms - written_ms >= SNAPSHOT_AGAIN_MS:
            self._written_ms = {
                other: at_ms for other, at_ms in self._written_ms.items() if now_ms - at_ms < SNAPSHOT_AGAIN_MS
            }
            self._written_ms[key] = now_ms
            self._write(what, f"{self._router}-{key}-{now_ms}", make())

    def _write(self, what: str, message_id: str, message: Message) -> None:
        subject = decisions_subject(self._place, self._router, what)
        self._put(Outgoing(subject, {"Nats-Msg-Id": f"{what}-{message_id}"}, message.SerializeToString()))


def policy_to_message(version: str, entries: Mapping[str, bytes]) -> records_pb2.PolicySnapshot:
    """The rules in the bucket `desired`: what decides, and nothing that is a secret."""
    return records_pb2.PolicySnapshot(
        version=version,
        entries={
            key: _without_settings(value) if key.startswith("deployments.") else value
            for key, value in entries.items()
            if not key.startswith("keys.")
        },
    )


def _without_settings(value: bytes) -> bytes:
    deployment = admin_pb2.Deployment.FromString(value)
    deployment.ClearField("settings")
    return deployment.SerializeToString()

"""Reads what was decided from the streams DECISIONS and EVENTS."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

import nats.errors
import nats.js.errors
from google.protobuf import json_format
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from enginehouse.contract import DependencyError
from enginehouse.services.bus import DECISIONS_STREAM, DECISIONS_SUBJECTS, FLEET, POLICY, RECORD, STREAM, Bus
from enginehouse.v1 import common_pb2, events_pb2, records_pb2

_SETTLED = "enginehouse.*.request.*.settled"
_BATCH = 256
_ANSWER_S = 5.0


@dataclass(slots=True)
class History:
    """What was decided, in order, with what it rests on.

    Attributes:
        records: oldest first.
        fleets, rules: snapshots by version.
        usages: what requests really used, by decision id, as far as they are settled.
    """

    records: list[records_pb2.DecisionRecord] = field(default_factory=list)
    fleets: dict[str, records_pb2.FleetSnapshot] = field(default_factory=dict)
    rules: dict[str, records_pb2.PolicySnapshot] = field(default_factory=dict)
    usages: dict[str, common_pb2.Usage] = field(default_factory=dict)

    def take(self, what: str, payload: bytes, since: datetime) -> None:
        """Takes one message of the stream DECISIONS. Records from before `since` are left out, snapshots never."""
        if what == FLEET:
            fleet = records_pb2.FleetSnapshot.FromString(payload)
            self.fleets[fleet.version] = fleet
        elif what == POLICY:
            rules = records_pb2.PolicySnapshot.FromString(payload)
            self.rules[rules.version] = rules
        elif what == RECORD:
            record = records_pb2.DecisionRecord.FromString(payload)
            if record.decided_at.ToDatetime(since.tzinfo) >= since:
                self.records.append(record)


async def read_history(bus: Bus, since: datetime) -> History:
    """Everything that was decided since then, as far as the streams still hold it.

    Raises:
        DependencyError: NATS does not answer, or there is no such stream.
    """
    history = History()
    try:
        async for message in _messages(bus, DECISIONS_STREAM, DECISIONS_SUBJECTS, None):
            history.take(message.subject.rpartition(".")[2], message.data, since)
        async for message in _messages(bus, STREAM, _SETTLED, since):
            settled = json_format.Parse(message.data, events_pb2.RequestSettled(), ignore_unknown_fields=True)
            history.usages[settled.decision_id] = settled.usage
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
        raise DependencyError(f"the record of decisions cannot be read: {error!r}; is the mesh up?") from error
    history.records.sort(key=lambda record: record.decided_at.ToNanoseconds())
    return history


async def _messages(bus: Bus, stream: str, subject: str, since: datetime | None) -> AsyncIterator[Msg]:
    """The stream's messages up to now."""
    config = ConsumerConfig(
        filter_subject=subject,
        deliver_policy=DeliverPolicy.ALL if since is None else DeliverPolicy.BY_START_TIME,
        opt_start_time=since,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=60,
    )
    waiting = await bus.jetstream.pull_subscribe(subject, stream=stream, config=config)
    try:
        left = (await waiting.consumer_info()).num_pending or 0
        while left > 0:
            batch = await waiting.fetch(min(_BATCH, left), timeout=_ANSWER_S)
            left -= len(batch)
            for message in batch:
                yield message
    finally:
        await waiting.unsubscribe()

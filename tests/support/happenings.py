"""What a mesh tells: its events over NATS, and its routers' decisions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import nats
from google.protobuf import json_format
from google.protobuf.message import Message
from nats.aio.msg import Msg

from enginehouse.services.server import channel
from enginehouse.v1 import events_pb2, router_pb2, router_pb2_grpc
from tests.support.waiting import until

Payload = TypeVar("Payload", bound=Message)
SUBJECTS = "enginehouse.>"


@dataclass(frozen=True, slots=True)
class Event:
    """One event as a subscriber gets it."""

    subject: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def place(self) -> str:
        """Where it happened, as the subject spells it."""
        return self.subject.split(".")[1]

    @property
    def what(self) -> str:
        """Kind and what, for example "request.settled"."""
        _, _, kind, _, what = self.subject.split(".")
        return f"{kind}.{what}"

    @property
    def id(self) -> str:
        """Whom it is about, as the subject spells it."""
        return self.subject.split(".")[3]

    def payload(self, kind: type[Payload]) -> Payload:
        """The payload, which must be a message of that kind and nothing else."""
        return json_format.Parse(self.data, kind())


class Events:
    """Events since the subscription, in order of arrival."""

    def __init__(self) -> None:
        self.all: list[Event] = []

    async def note(self, message: Msg) -> None:
        """Takes one in."""
        self.all.append(Event(message.subject, dict(message.headers or {}), message.data))

    def of(self, what: str) -> list[Event]:
        """Those of one kind, for example "replica.ready"."""
        return [event for event in self.all if event.what == what]

    async def until(self, what: str, is_it: Callable[[Event], bool] = lambda _: True) -> Event:
        """The first of a kind that `is_it`, waited for."""
        await until(lambda: any(is_it(event) for event in self.of(what)), f"event {what}")
        return next(event for event in self.of(what) if is_it(event))

    async def settled(self, request_id: str) -> events_pb2.RequestSettled:
        """How a request was settled."""
        event = await self.until("request.settled", lambda event: event.id == request_id)
        return event.payload(events_pb2.RequestSettled)

    async def decided(self, request_id: str) -> events_pb2.RequestDecided:
        """How a request was decided."""
        event = await self.until("request.decided", lambda event: event.id == request_id)
        return event.payload(events_pb2.RequestDecided)

    async def decisions_of(self, tenant: str, count: int) -> list[events_pb2.RequestDecided]:
        """The first `count` decisions about a tenant's requests, waited for."""

        def found() -> list[events_pb2.RequestDecided]:
            every = (event.payload(events_pb2.RequestDecided) for event in self.of("request.decided"))
            return [decided for decided in every if decided.principal.tenant == tenant]

        await until(lambda: len(found()) >= count, f"{count} decisions for {tenant}")
        return found()

    def settlements(self, request_id: str) -> int:
        """How often a request was settled so far."""
        return sum(event.id == request_id for event in self.of("request.settled"))


@asynccontextmanager
async def subscribed(nats_url: str, subjects: str = SUBJECTS) -> AsyncIterator[Events]:
    """A subscription that stands when the block begins."""
    client = await nats.connect(nats_url)
    events = Events()
    try:
        await client.subscribe(subjects, cb=events.note)
        await client.flush()
        yield events
    finally:
        await client.close()


class Decisions:
    """Decisions as a router makes them, by id."""

    def __init__(self) -> None:
        self.by_id: dict[str, router_pb2.Decision] = {}

    async def follow(self, address: str) -> None:
        """Takes them in, for ever."""
        async with channel(address) as connection:
            stub = router_pb2_grpc.RouterServiceStub(connection)
            async for answer in stub.WatchDecisions(router_pb2.WatchDecisionsRequest()):
                self.by_id[answer.decision.id] = answer.decision

    async def of(self, decision_id: str) -> router_pb2.Decision:
        """The decision of that id, waited for."""
        await until(lambda: decision_id in self.by_id, f"decision {decision_id}")
        return self.by_id[decision_id]


@asynccontextmanager
async def following(address: str) -> AsyncIterator[Decisions]:
    """The decisions of the router at `address`. The stream begins with the first decision that it carries."""
    decisions = Decisions()
    task = asyncio.create_task(decisions.follow(address))
    try:
        yield decisions
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

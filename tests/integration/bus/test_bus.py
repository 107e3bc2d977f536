"""The bus against a real nats-server that dies and comes back."""

import json
from collections.abc import Mapping

import pytest

from enginehouse.contract import DependencyError
from enginehouse.services.bus import (
    DESIRED,
    STREAM,
    SUBJECTS,
    BucketStore,
    Bus,
    EventPublisher,
    Mirror,
    ensure_stream,
    subject_of,
)
from enginehouse.v1 import events_pb2
from tests.support.nats import NatsServer
from tests.support.waiting import until, until_async


class Copy:
    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def __call__(self, entries: Mapping[str, bytes]) -> None:
        self.entries = dict(entries)


async def test_a_mirror_follows_and_is_rebuilt_after_an_outage(server: NatsServer, bus: Bus) -> None:
    await bus.connected()
    store, copy = BucketStore(bus, DESIRED), Copy()
    await store.put("a", b"1")
    mirror = Mirror(bus, DESIRED, copy)
    await mirror.start()
    try:
        await until(lambda: copy.entries == {"a": b"1"}, "snapshot")
        await store.put("b", b"2")
        await store.delete("a")
        await until(lambda: copy.entries == {"b": b"2"}, "updates")

        await server.kill()
        await until(lambda: not bus.is_connected, "loss noticed")
        assert copy.entries == {"b": b"2"}
        with pytest.raises(DependencyError):
            await store.put("c", b"3")

        await server.start()
        await bus.connected()
        await store.put("c", b"3")
        await until(lambda: copy.entries == {"b": b"2", "c": b"3"}, "rebuilt")
        assert mirror.snapshots >= 2
        assert await store.entries() == {"b": b"2", "c": b"3"}
    finally:
        await mirror.stop()


async def test_a_bus_connects_to_a_server_that_comes_later(server: NatsServer) -> None:
    await server.kill()
    late = Bus(server.url, "late")
    await late.start()
    try:
        assert not late.is_connected
        await server.start()
        await late.connected()
        assert await BucketStore(late, DESIRED).entries() == {}
    finally:
        await late.stop()


async def test_events_reach_the_stream_once_and_in_order_across_an_outage(server: NatsServer, bus: Bus) -> None:
    await bus.connected()
    await ensure_stream(bus, STREAM, SUBJECTS, age_s=600, bytes_max=1 << 24)
    publisher = EventPublisher(bus, source="/test/1", place="eu/de")
    await publisher.start()
    publisher.publish("node", "n1", "joined", events_pb2.NodeChanged(node="n1", place="eu/de"))

    async def stored() -> int:
        return (await bus.jetstream.stream_info(STREAM)).state.messages

    async def first_is_stored() -> bool:
        return await stored() == 1

    await until_async(first_is_stored, "first event stored")
    await server.kill()
    await until(lambda: not bus.is_connected, "loss noticed")
    for number in range(2, 200):
        publisher.publish("node", f"n{number}", "joined", events_pb2.NodeChanged(node=f"n{number}"))
    await server.start()
    await bus.connected()
    await publisher.stop(grace_s=10)
    assert await stored() == 199
    subscription = await bus.jetstream.subscribe("enginehouse.eu-de.node.*.joined", ordered_consumer=True)
    messages = [await subscription.next_msg(timeout=5) for _ in range(199)]
    await subscription.unsubscribe()
    assert [json.loads(message.data)["node"] for message in messages] == [f"n{number}" for number in range(1, 200)]
    headers = messages[0].headers or {}
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == "enginehouse.node.joined.v1"
    assert headers["ce-source"] == "/test/1"
    assert publisher.dropped == 0


def test_a_subject_has_five_tokens_whatever_its_parts_hold() -> None:
    assert subject_of("eu/de", "replica", "a.b c*", "ready") == "enginehouse.eu-de.replica.a-b-c-.ready"
    assert subject_of("", "node", "", "left") == "enginehouse.nowhere.node.-.left"

"""Every event that a mesh publishes in its life is the one that docs/events.md describes."""

import contextlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import grpc.aio
import nats
from google.protobuf import json_format
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from enginehouse.v1 import admin_pb2, events_pb2, ledger_pb2
from tests.support.event_docs import read_event_docs
from tests.support.mesh import UserMesh
from tests.support.operator import Operator, operate

SHARED = Path(__file__).with_name("mesh.yaml")
DOCS = read_event_docs()
SUBJECT = re.compile(r"enginehouse\.(?P<place>[a-z-]+)\.(?P<kind>[a-z]+)\.(?P<id>[A-Za-z0-9_-]+)\.(?P<what>[a-z_]+)")
PRICE_NANOUSD = 1_000_000
# What takes longer than this test, or something going wrong for good.
RARE = {"replica.degraded", "replica.failed", "limit.overrun", "limit.written_off", "resource.quarantined"}
# What needs an engine that can sleep, or a host whose accelerators are all in use.
RARE |= {"replica.asleep", "replacement.waiting", "replacement.without_room"}
AFTER_THE_END = {"node.draining", "node.left", "replica.draining", "replica.stopped"}


async def history(nats_url: str) -> list[Msg]:
    """Everything that the stream EVENTS holds."""
    client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        count = (await jetstream.stream_info("EVENTS")).state.messages
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        subscription = await jetstream.pull_subscribe("enginehouse.>", stream="EVENTS", config=config)
        messages: list[Msg] = []
        while len(messages) < count:
            messages += await subscription.fetch(100, timeout=5)
        return messages
    finally:
        await client.close()


def what_of(message: Msg) -> str:
    """Kind and what of an event, which must be as they are documented: subject, envelope and payload."""
    subject = SUBJECT.fullmatch(message.subject)
    assert subject, message.subject
    name = f"{subject['kind']}.{subject['what']}"
    headers = message.headers or {}
    payload = getattr(events_pb2, DOCS.payloads[name])()
    json_format.Parse(message.data, payload)
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == f"enginehouse.{name}.v1"
    assert headers["ce-dataschema"] == payload.DESCRIPTOR.full_name
    assert headers["ce-source"].split("/")[1] in ("router", "node", "control")
    assert headers["content-type"] == "application/json"
    assert headers["Nats-Msg-Id"] == headers["ce-id"]
    return name


def whats_of(messages: Iterable[Msg]) -> set[str]:
    """The kinds of events in a history, each of which is as it is documented and there once."""
    messages = list(messages)
    ids = [(message.headers or {})["ce-id"] for message in messages]
    assert len(set(ids)) == len(ids)
    return {what_of(message) for message in messages}


async def live(operator: Operator) -> None:
    """A life of every kind of event that a mesh has in a short one."""
    events, admin = await operator.events(), operator.admin
    caller = await operator.caller()
    limit = await operator.limit(caller, ledger_pb2.LIMIT_UNIT_USD, 2 * PRICE_NANOUSD, model="echo")
    assert [(await caller.chat("echo")).status for _ in range(3)] == [200, 200, 402]
    await events.until("limit.threshold", lambda event: b'"threshold_percent": 100' in event.data)
    await admin.UpdateLimit(admin_pb2.UpdateLimitRequest(limit=admin_pb2.Limit(name=limit, cap=1)))
    await admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name=limit))
    await events.until("resource.deleted")
    for rule in (admin_pb2.PolicyRule(name="any"), admin_pb2.PolicyRule(name="wrong", models=["no-such-model"])):
        rules = admin_pb2.PolicySet(name="policies/default", rules=[rule])
        with contextlib.suppress(grpc.aio.AioRpcError):
            await admin.UpdatePolicySet(admin_pb2.UpdatePolicySetRequest(policy_set=rules))
    await events.until("policy.refused")
    operator.mesh.kill_engine((await operator.replicas())["echo-eu-de-0"].address)
    await events.until("replica.ready")
    deployment = await admin.GetDeployment(admin_pb2.GetDeploymentRequest(name="deployments/american"))
    for quantization, step in (("fp8", "failed"), ("", "completed")):  # of which an echo engine has none
        deployment.settings.quantization, deployment.settings.parallel, deployment.etag = quantization, 8, ""
        await admin.UpdateDeployment(admin_pb2.UpdateDeploymentRequest(deployment=deployment))
        await events.until(f"replacement.{step}")


async def test_every_event_is_documented_and_every_documented_event_happens(
    new_mesh: Callable[[str], UserMesh],
) -> None:
    mesh = new_mesh(SHARED.read_text())
    mesh.start()
    async with operate(mesh) as operator:
        await live(operator)
        lived = whats_of(await history(mesh.running.nats_url))
    mesh.stop()
    assert set(DOCS.payloads) - lived <= RARE | AFTER_THE_END
    mesh.start()
    ended = whats_of(await history(mesh.running.nats_url))
    assert set(DOCS.payloads) - ended <= RARE
    mesh.stop()

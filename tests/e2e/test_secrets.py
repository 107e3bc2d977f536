"""Keys, prompts and completions leave no trace: in no log, event or file, on no lane, whether it went well or not."""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import grpc

from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2, ledger_pb2
from tests.support.caller import Caller, Reply, chat_body, generate_request
from tests.support.echo import FaultKind
from tests.support.happenings import Events
from tests.support.mesh import UserMesh
from tests.support.operator import Operator, operate
from tests.support.waiting import until_async

SHARED = Path(__file__).with_name("mesh.yaml")
USD = ledger_pb2.LIMIT_UNIT_USD
LANES = (common_pb2.LANE_DIRECT, common_pb2.LANE_ADAPTER)
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
FAULTS: tuple[FaultKind, ...] = ("error_frame", "unavailable", "refuse", "die")


class Secrets:
    """Everything that must not be found, and the search for it."""

    def __init__(self) -> None:
        self.prompt = f"prompt{secrets.token_hex(12)}"
        self.session = f"session{secrets.token_hex(12)}"
        self.wrong_key = f"ehk_{secrets.token_hex(24)}"
        self.keys: list[str] = [self.wrong_key]

    @property
    def text(self) -> str:
        """A prompt, and so what the echo engine generates."""
        return " ".join([self.prompt] * 8)

    def found_in(self, data: bytes) -> list[str]:
        """Which of them are in there, as they are or in base64."""
        return [
            secret for secret in (self.prompt, self.session, *self.keys) if any(one in data for one in _forms(secret))
        ]


def _forms(secret: str) -> Iterator[bytes]:
    data = secret.encode()
    yield data
    for shift in range(3):  # base64 writes the same bytes in three ways, by where they begin
        yield base64.b64encode(b"\0" * shift + data)[-(-shift * 4 // 3) + (shift > 0) : -4]


def test_secret_is_recognized_in_every_form() -> None:
    marked = Secrets()
    for secret in (marked.prompt, marked.session, marked.wrong_key):
        for before in (b"", b"x", b"xy", b"xyz"):
            text = before + secret.encode() + b"!"
            assert marked.found_in(text) == [secret]
            assert marked.found_in(b"{" + base64.b64encode(text) + b"}") == [secret]
    assert marked.found_in(b"prompt session ehk_") == []


async def ask_everything(caller: Caller, marked: Secrets, model: str) -> list[Reply]:
    """Every door and every kind of request, unary and streamed. Returns the answers of those that had one."""
    replies = []
    headers = {"x-enginehouse-session": marked.session, "user-agent": marked.prompt}
    chat = chat_body(model, marked.text, max_tokens=64, user=marked.prompt)
    for path, body in (
        (CHAT, chat),
        (f"{CHAT}?key={caller.secret}", {**chat, "stream": True}),
        ("/v1/completions", {"model": model, "prompt": marked.text}),
        ("/v1/completions", {"model": model, "prompt": marked.text, "stream": True}),
        ("/v1/embeddings", {"model": model, "input": [marked.text]}),
        ("/v1/rerank", {"model": model, "query": marked.text, "documents": [marked.text, "two"]}),
        (MESSAGES, chat_body(model, marked.text, max_tokens=64, system=marked.text)),
        (MESSAGES, chat_body(model, marked.text, max_tokens=64, stream=True)),
        ("/v1/messages/count_tokens", chat_body(model, marked.text)),
    ):
        with contextlib.suppress(aiohttp.ClientError):
            replies.append(await caller.post(path, body, headers))
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in caller.grpc.Generate(generate_request(model, marked.text, 64), metadata=caller.metadata):
            pass
    with contextlib.suppress(grpc.aio.AioRpcError):
        request = inference_pb2.EmbedRequest(model=model, input=[marked.text])
        await caller.grpc.Embed(request, metadata=caller.metadata)
    return replies


async def ask_what_is_refused(operator: Operator, caller: Caller, marked: Secrets) -> None:
    """Requests that the door, the router or the rules turn away, each with a status of its own."""
    chat = chat_body("echo", marked.text)
    wrong_key = {"authorization": f"Bearer {marked.wrong_key}"}
    answers = {
        400: [
            await caller.post(CHAT, b'{"model": "echo", "messages": ["' + marked.text.encode()),
            await caller.post(CHAT, {**chat, "messages": [{"role": marked.prompt, "content": 1}]}),
            await caller.post(MESSAGES, {**chat_body("echo", marked.text), "max_tokens": marked.prompt}),
            await caller.post(CHAT, chat, {"x-enginehouse-residency": "narnia"}),
        ],
        401: [
            await caller.post(CHAT, chat, wrong_key),
            await caller.post(MESSAGES, chat, {"x-api-key": marked.wrong_key, "authorization": ""}),
        ],
        404: [await caller.post(f"{CHAT}/more", chat)],
        413: [await caller.post(CHAT, chat_body("echo", marked.text * 9000))],
        451: [await caller.post(CHAT, chat_body("american", marked.text), {"x-enginehouse-residency": "us"})],
    }
    for status, replies in answers.items():
        assert [reply.status for reply in replies] == [status] * len(replies), replies
    poor = await operator.caller()
    marked.keys.append(poor.secret)
    await operator.limit(poor, USD, 1, model="echo")
    assert (await poor.post(CHAT, chat)).status == 402
    assert (await poor.post(MESSAGES, {**chat, "max_tokens": 4})).status == 402


async def leave_early(caller: Caller, marked: Secrets, path: str) -> None:
    """Leaves a stream in its middle."""
    body = chat_body("slow", " ".join([marked.prompt] * 99), stream=True, max_tokens=99)
    async with caller.open(path, body) as answer:
        assert answer.status == 200
        while marked.prompt.encode() not in await answer.content.readline():
            pass


async def break_engine(operator: Operator, caller: Caller, marked: Secrets) -> None:
    """Every request meets every fault once."""
    for kind in FAULTS:
        engine = await operator.engine("fragile-eu-de-0")
        await engine.plan_fault(
            kind, after_tokens=2 if kind == "error_frame" else 0, requests=1 if kind == "die" else 99
        )
        await ask_everything(caller, marked, "fragile")
        if kind != "die":
            await engine.clear_faults()

        async def is_served() -> bool:
            return (await caller.chat("fragile")).status == 200

        await until_async(is_served, "fragile is served again", 60)


def leaks(folder: Path, marked: Secrets) -> dict[str, list[str]]:
    """Which files of the folder hold which secrets."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"control.db", "router-0.log", "gateway.log", "desired.snapshot", "fragile-eu-de-0.log"} <= {
        file.name for file in files
    }
    found = {str(file.relative_to(folder)): marked.found_in(file.read_bytes()) for file in files}
    return {name: secrets for name, secrets in found.items() if secrets}


def assert_events_hold_none(events: Events, marked: Secrets) -> None:
    """Nothing is in any event: subject, headers, payload."""
    assert events.of("request.decided")
    assert events.of("request.settled")
    for event in events.all:
        told = f"{event.subject} {event.headers}".encode() + event.data
        assert marked.found_in(told) == [], event.what


async def test_keys_prompts_and_completions_leave_no_trace(new_mesh: Callable[[str], UserMesh]) -> None:
    mesh, marked = new_mesh(SHARED.read_text() + "telemetry: {log_level: debug}\n"), Secrets()
    mesh.start()
    printed = mesh.printed
    marked.keys += [word for word in printed.replace("=", " ").split() if word.startswith("ehk_")]
    assert len(marked.keys) == 3  # the wrong one, the first administrator's, the one to paste
    async with operate(mesh) as operator:
        events = await operator.events()
        callers = [await operator.caller(policy=admin_pb2.Policy(lane=lane)) for lane in LANES]
        marked.keys += [caller.secret for caller in callers]
        for caller in callers:
            replies = await ask_everything(caller, marked, "twin")
            assert [reply.status for reply in replies] == [200] * 9
            assert sum(marked.prompt.encode() in reply.body for reply in replies) >= 6
            await break_engine(operator, caller, marked)
        await ask_what_is_refused(operator, callers[0], marked)
        await asyncio.gather(*(leave_early(callers[0], marked, path) for path in (CHAT, MESSAGES)))
        await events.until("request.settled", lambda event: b"client_left" in event.data)
        assert_events_hold_none(events, marked)
        assert leaks(mesh.state.path, marked) == {}
    mesh.stop()
    assert leaks(mesh.state.path, marked) == {}
    assert marked.found_in(mesh.printed.removeprefix(printed).encode()) == []

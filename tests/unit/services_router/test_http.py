"""A check that Envoy no longer waits for."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from enginehouse.services.router.check import Answer
from enginehouse.services.router.http import Message, RouterApp

SCOPE = {
    "type": "http",
    "method": "POST",
    "raw_path": b"/check/v1/chat/completions",
    "query_string": b"",
    "headers": [(b"x-request-id", b"r1")],
}


class Envoy:
    """Sends a body, and hangs up when it is told to."""

    def __init__(self) -> None:
        self.hangs_up = asyncio.Event()
        self.sent: list[Message] = []
        self._has_sent_body = False

    async def receive(self) -> Message:
        if not self._has_sent_body:
            self._has_sent_body = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await self.hangs_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


class Check:
    """Answers when it is let, with a status; knows whether it was ended before."""

    def __init__(self, status: int = HTTPStatus.OK) -> None:
        self.may_answer = asyncio.Event()
        self.has_begun = asyncio.Event()
        self.was_ended = False
        self._status = status

    async def check(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.has_begun.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.was_ended = True
            raise
        return Answer(self._status, [])


def app(check: Check, abandoned: list[str]) -> RouterApp:
    checker: Any = check
    return RouterApp(checker, abandoned=abandoned.append, list_models=lambda _: [], ready=lambda: None)


async def test_an_answer_reaches_envoy() -> None:
    envoy, check, abandoned = Envoy(), Check(), list[str]()
    check.may_answer.set()
    await app(check, abandoned)(dict(SCOPE), envoy.receive, envoy.send)
    assert envoy.sent[0]["status"] == HTTPStatus.OK
    assert abandoned == []


async def test_a_check_ends_when_envoy_hangs_up_and_admits_nothing() -> None:
    envoy, check, abandoned = Envoy(), Check(), list[str]()
    asking = asyncio.create_task(app(check, abandoned)(dict(SCOPE), envoy.receive, envoy.send))
    await check.has_begun.wait()
    envoy.hangs_up.set()
    await asking
    assert check.was_ended
    assert (envoy.sent, abandoned) == ([], [])


async def _hung_up_at_the_last_moment(status: int) -> list[str]:
    envoy, check, abandoned = Envoy(), Check(status), list[str]()
    original, is_hung_up = check.check, asyncio.Event()

    async def late(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = await original(method, path, headers, body)
        envoy.hangs_up.set()
        try:
            await is_hung_up.wait()
        except asyncio.CancelledError:
            return answer  # what was decided is decided
        return answer

    check.check = late  # type: ignore[method-assign]
    check.may_answer.set()
    await app(check, abandoned)(dict(SCOPE), envoy.receive, envoy.send)
    assert envoy.sent == []
    return abandoned


async def test_what_was_admitted_for_nobody_is_released() -> None:
    assert await _hung_up_at_the_last_moment(HTTPStatus.OK) == ["r1"]


async def test_a_refusal_for_nobody_releases_nothing() -> None:
    assert await _hung_up_at_the_last_moment(HTTPStatus.TOO_MANY_REQUESTS) == []


async def test_a_router_that_stops_ends_the_check_as_a_cancellation() -> None:
    envoy, check = Envoy(), Check()
    asking = asyncio.create_task(app(check, [])(dict(SCOPE), envoy.receive, envoy.send))
    await check.has_begun.wait()
    asking.cancel()
    ended = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)


async def test_what_is_decided_at_once_is_not_sent_to_an_envoy_that_has_gone_before() -> None:
    envoy, check, abandoned = Envoy(), Check(), list[str]()
    check.may_answer.set()
    envoy.hangs_up.set()
    await app(check, abandoned)(dict(SCOPE), envoy.receive, envoy.send)
    assert (envoy.sent, abandoned) == ([], ["r1"])

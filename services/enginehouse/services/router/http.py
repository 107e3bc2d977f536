"""The router's HTTP server: Envoy's check, and the few paths that the router answers itself."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Any

import uvicorn

from enginehouse.adapters.dialects import EXPLAIN_PATH
from enginehouse.contract import DependencyError
from enginehouse.services.router.check import PRINCIPAL_HEADER, Answer, Checker

CHECK_PREFIX = "/check"
_JSON = ("content-type", "application/json")
_BACKLOG = 2048
_LOOKS = 3
"""Turns of the loop until the end of a connection has come through: it is read, then told, then heard."""

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class RouterApp:
    """A bare ASGI application: a framework would cost more than the decision.

    Args:
        checker: answers Envoy.
        abandoned: told the request id when Envoy went away before it was answered.
        list_models: the models that a key (resource name) may use, as OpenAI lists them.
        ready: how many replicas are ready and known; None while this router cannot decide.
    """

    def __init__(
        self,
        checker: Checker,
        *,
        abandoned: Callable[[str], None],
        list_models: Callable[[str], list[dict[str, object]]],
        ready: Callable[[], tuple[int, int] | None],
    ) -> None:
        self._checker = checker
        self._abandoned = abandoned
        self._list_models = list_models
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (ASGI 3)."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["raw_path"].decode("latin-1")
        if path.startswith(CHECK_PREFIX + "/"):
            if scope["query_string"]:
                path += "?" + scope["query_string"].decode("latin-1")
            await self._check(scope["method"], path.removeprefix(CHECK_PREFIX), headers, receive, send)
        elif path == EXPLAIN_PATH and PRINCIPAL_HEADER in headers:
            body = await _body(receive)
            if body is not None:
                await _send(send, await self._checker.explain(scope["query_string"].decode("latin-1"), headers, body))
        else:
            await _send(send, self._local(path, headers))

    async def _check(self, method: str, path: str, headers: dict[str, str], receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            return
        gone = asyncio.ensure_future(receive())  # resolves when Envoy no longer waits
        try:
            answer = await _unless(gone, self._checker.check(method, path, headers, body))
            if answer is None:
                return
            if answer.status == HTTPStatus.OK:
                await _look_up(gone)
            if not gone.done():
                await _send(send, answer)
            elif answer.status == HTTPStatus.OK:
                # Only what this very check admitted: Envoy may have asked again, and that one may be on its way.
                self._abandoned(headers.get("x-request-id", ""))
        finally:
            gone.cancel()

    def _local(self, path: str, headers: dict[str, str]) -> Answer:
        ready = self._ready()
        if path == "/healthz":
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            return _json(status, {"status": "deciding" if ready else "starting"})
        if path == "/health":
            return _json(HTTPStatus.OK, {"status": "ok"})
        if path == "/ready":
            replicas_ready, replicas_known = ready or (0, 0)
            status = HTTPStatus.OK if replicas_ready else HTTPStatus.SERVICE_UNAVAILABLE
            return _json(
                status,
                {
                    "status": "ready" if replicas_ready else "not ready",
                    "replicas": {"ready": replicas_ready, "known": replicas_known},
                },
            )
        if path == "/v1/models" and PRINCIPAL_HEADER in headers:
            return _json(HTTPStatus.OK, {"object": "list", "data": self._list_models(headers[PRINCIPAL_HEADER])})
        return _json(HTTPStatus.NOT_FOUND, {"error": {"message": "there is no such path", "code": "path_not_found"}})


class HttpServer:
    """uvicorn with the application, without its own signal handling.

    Raises:
        DependencyError: from `start`: the port cannot be used.
    """

    def __init__(self, app: RouterApp, host: str, port: int) -> None:
        self._address = f"{host}:{port}"
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=300,
            backlog=_BACKLOG,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Binds and serves."""
        self._serving = asyncio.create_task(self._serve(), name="serve http")
        while not self._server.started:
            if self._serving.done():
                raise DependencyError(f"cannot listen on {self._address}: it is in use; choose another port")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Takes no more requests and ends when those that run are answered."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving

    async def _serve(self) -> None:
        with contextlib.suppress(SystemExit):  # uvicorn's way of saying that it cannot bind
            await self._server.serve()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process."""
        yield


async def _unless(gone: asyncio.Future[Message], work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """What `work` returns; None when `gone` came first, and then `work` was ended where it waited."""
    task, is_working = asyncio.current_task(), True

    def end(_: asyncio.Future[Message]) -> None:
        if is_working and task is not None:
            task.cancel()

    gone.add_done_callback(end)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone.done() or task is None or task.uncancel():
            raise
        return None
    finally:
        is_working = False


async def _look_up(gone: asyncio.Future[Message]) -> None:
    """Lets the loop read what has happened to the connection: on a busy router a question is old when it is read."""
    for _ in range(_LOOKS):
        if gone.done():
            return
        await asyncio.sleep(0)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when Envoy went away before its end."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _send(send: Send, answer: Answer) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": int(answer.status), "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _json(status: HTTPStatus, content: dict[str, object]) -> Answer:
    return Answer(status, (_JSON,), json.dumps(content).encode())

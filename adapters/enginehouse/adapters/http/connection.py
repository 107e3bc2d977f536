"""HTTP to one engine: requests out, bytes back, and aiohttp's errors turned into ours in one place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from enginehouse.adapters._json import loads
from enginehouse.adapters.http.failures import error_from_answer
from enginehouse.adapters.usage import JSON_BYTES_MAX
from enginehouse.contract import EngineError, Reason, RequestError

ERROR_STATUS_MIN = 400
_ERROR_BYTES_MAX = 64 * 1024


def open_session() -> aiohttp.ClientSession:
    """A session for engines: any number of connections, no cookies, bytes as the engine sent them.

    Every request gets a connection of its own (0.2 ms on loopback: ran). llama.cpp closes one after a stream although
    it has promised to keep it, so the next request would meet the close now and then, and a generation cannot be
    retried.

    Nagle's algorithm is off: aiohttp sets TCP_NODELAY on every connection.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


@dataclass(frozen=True, slots=True)
class EngineCall:
    """What is posted to an engine.

    Args:
        named: what the client named and the engine may not have, for example a LoRA adapter. It is the client's fault
            then, and no engine's, that it is not found.
    """

    path: str
    body: bytes
    named: str = ""


class EngineConnection:
    """Posts to one engine.

    Args:
        base_url: like ``http://127.0.0.1:8000``.
        session: see `open_session`; it stays the caller's.
        engine: its name, for messages.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two pieces of an answer, the first included.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        *,
        engine: str,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        self.engine = engine
        self._base_url = base_url.rstrip("/")
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s)

    async def open(self, call: EngineCall, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Posts, and returns once the answer's headers are here. The caller closes the answer.

        Raises:
            EngineError: the engine was not reached, hung up, or was silent for too long.
        """
        everything = {"content-type": "application/json", "accept-encoding": "identity", **headers}
        with self._mapped_errors():
            return await self._session.post(
                self._base_url + call.path, data=call.body, headers=everything, timeout=self._timeout
            )

    async def accept(self, response: aiohttp.ClientResponse, call: EngineCall) -> None:
        """Raises for an answer to `call` with an error status.

        Raises:
            EngineError: what the engine answered.
            RequestError: CONTEXT_TOO_LONG, or MODEL_NOT_FOUND for what the client named.
        """
        if response.status == HTTPStatus.NOT_FOUND and call.named:
            message = f"the engine {self.engine} has no {call.named}; name one that the deployment loads"
            raise RequestError(message, Reason.MODEL_NOT_FOUND, metadata={"engine": self.engine})
        if response.status >= ERROR_STATUS_MIN:
            payload = loads(await self.read_all(response, _ERROR_BYTES_MAX))
            raise error_from_answer(self.engine, response.status, payload)

    async def read_some(self, response: aiohttp.ClientResponse) -> bytes:
        """The bytes that came next; none at the end.

        Raises:
            EngineError: the answer broke off, or nothing came for too long.
        """
        with self._mapped_errors():
            return await response.content.readany()

    async def read_all(self, response: aiohttp.ClientResponse, bytes_max: int = JSON_BYTES_MAX) -> bytes:
        """The whole answer.

        Raises:
            EngineError: it broke off, nothing came for too long, or it is larger than `bytes_max`.
        """
        body = bytearray()
        while chunk := await self.read_some(response):
            body += chunk
            if len(body) > bytes_max:
                raise EngineError(f"the engine {self.engine} sent an answer of more than {bytes_max} bytes")
        return bytes(body)

    async def post(self, call: EngineCall, headers: Mapping[str, str]) -> bytes:
        """Posts, and returns the body of a good answer.

        Raises:
            EngineError: as `open`, `accept` and `read_all`.
            RequestError: as `accept`.
        """
        response = await self.open(call, headers)
        try:
            await self.accept(response, call)
            return await self.read_all(response)
        finally:
            response.close()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            message = f"the engine {self.engine} was silent for too long; try again"
            raise EngineError(message, Reason.ENGINE_TIMEOUT, metadata={"engine": self.engine}) from None
        except aiohttp.ClientConnectorError:
            message = f"the engine {self.engine} cannot be reached"
            raise EngineError(message, Reason.ENGINE_FAILED, metadata={"engine": self.engine}) from None
        except (aiohttp.ClientError, OSError):
            message = f"the engine {self.engine} broke off its answer"
            raise EngineError(message, Reason.ENGINE_FAILED, metadata={"engine": self.engine}) from None

"""A caller of a mesh: one API key, through every door."""

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import aiohttp
import anthropic
import grpc.aio
import openai

from enginehouse.services.server import channel
from enginehouse.v1 import inference_pb2, inference_pb2_grpc, router_pb2

Json = Any
Metadata = tuple[tuple[str, str], ...]
PROJECT, KEY = "e2e", "main"
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        """Envoy's id of the request."""
        return self.headers["x-request-id"]

    @property
    def decision_id(self) -> str:
        """The id of the decision behind it."""
        return self.headers["x-enginehouse-decision"]


class Caller:
    """One key of one tenant, and clients that use it, made when they are first asked for. None tries again by itself.

    Args:
        door: host:port of Envoy.
        stack: closes the clients.
    """

    def __init__(self, tenant: str, secret: str, door: str, stack: AsyncExitStack) -> None:
        self.tenant = tenant
        self.secret = secret
        self.door = door
        self._stack = stack

    @cached_property
    def openai(self) -> openai.AsyncOpenAI:
        """The official OpenAI SDK."""
        client = openai.AsyncOpenAI(
            base_url=f"http://{self.door}/v1", api_key=self.secret, max_retries=0, timeout=_TIMEOUT_S
        )
        self._stack.push_async_callback(client.close)
        return client

    @cached_property
    def anthropic(self) -> anthropic.AsyncAnthropic:
        """The official Anthropic SDK."""
        client = anthropic.AsyncAnthropic(
            base_url=f"http://{self.door}", api_key=self.secret, max_retries=0, timeout=_TIMEOUT_S
        )
        self._stack.push_async_callback(client.close)
        return client

    @cached_property
    def grpc(self) -> "inference_pb2_grpc.InferenceServiceAsyncStub":
        """InferenceService, on the same port."""
        connection = channel(self.door)
        self._stack.push_async_callback(connection.close)
        return inference_pb2_grpc.InferenceServiceStub(connection)

    @cached_property
    def http(self) -> aiohttp.ClientSession:
        """Plain HTTP, without a key of its own."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self._stack.push_async_callback(session.close)
        return session

    @property
    def tenant_name(self) -> str:
        """The tenant's resource name."""
        return f"organizations/default/tenants/{self.tenant}"

    @property
    def principal(self) -> router_pb2.Principal:
        """Whose requests these are."""
        return router_pb2.Principal(organization="default", tenant=self.tenant, project=PROJECT, key=KEY)

    @property
    def metadata(self) -> Metadata:
        """The key, for gRPC calls."""
        return (("authorization", f"Bearer {self.secret}"),)

    @property
    def headers(self) -> dict[str, str]:
        """The key, for HTTP."""
        return {"authorization": f"Bearer {self.secret}", "content-type": "application/json"}

    async def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Reply:
        """POST; `body` is bytes as they are, or becomes JSON."""
        async with self.open(path, body, headers) as answer:
            return Reply(answer.status, _lower(answer), await answer.read())

    @asynccontextmanager
    async def open(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """POST, with the answer to be read piece by piece. A client that does not read to its end has left."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.http.post(
            f"http://{self.door}{path}", data=data, headers={**self.headers, **(headers or {})}
        ) as answer:
            yield answer

    async def chat(self, model: str, text: str = "one", **members: object) -> Reply:
        """A chat in OpenAI's dialect."""
        return await self.post("/v1/chat/completions", chat_body(model, text, **members))


def chat_body(model: str, text: str = "one", **members: object) -> dict[str, object]:
    """A chat of one message, as OpenAI and Anthropic both write it."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **members}


def generate_request(
    model: str, text: str = "one", output_tokens_max: int | None = None
) -> inference_pb2.GenerateRequest:
    """A chat of one message, as gRPC has it."""
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, parts=[inference_pb2.Part(text=text)])
    return inference_pb2.GenerateRequest(
        model=model,
        conversation=inference_pb2.Conversation(messages=[message]),
        sampling=inference_pb2.Sampling(max_output_tokens=output_tokens_max),
    )


@asynccontextmanager
async def open_caller(door: str, tenant: str, secret: str) -> AsyncIterator[Caller]:
    """Clients with this key, closed at the end of the block."""
    async with AsyncExitStack() as stack:
        yield Caller(tenant, secret, door, stack)


async def refused(call: "grpc.aio.Call | object") -> grpc.aio.AioRpcError:
    """The error that a gRPC call ends with."""
    try:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            async for _ in call:
                pass
        else:
            await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was served")


def _lower(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}

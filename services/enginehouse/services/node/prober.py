"""Learns whether an engine works by making it work: one token, or one embedding."""

from collections.abc import Collection
from dataclasses import dataclass

import aiohttp
from enginehouse.adapters.openai import EngineClient
from enginehouse.contract import EngineError
from enginehouse.services.node.quirks import quirks_of
from enginehouse.v1 import common_pb2, inference_pb2

_PROBE_IDLE_S = 30.0
_TEXT = "a"


@dataclass(frozen=True, slots=True)
class MeasuredReadiness:
    """What the first answers taught us, in tokens. Both are upper bounds."""

    template_tokens: int = 0
    message_tokens: int = 0


class DialectProber:
    """A prober for one kind of engine that speaks OpenAI's API.

    Args:
        engine: its kind.
        session: for its connections; it stays the caller's.
    """

    def __init__(self, engine: str, session: aiohttp.ClientSession) -> None:
        self._quirks = quirks_of(engine)
        self._session = session

    async def probe_ready(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> MeasuredReadiness:
        """Makes the engine answer, and measures what its template adds to a text of one byte.

        One byte is at least one token, so what is counted for it bounds the template from above.
        """
        client = self._client(address)
        if common_pb2.OPERATION_CHAT in operations:
            one = await self._chat_tokens(client, served_model, turns=1)
            three = await self._chat_tokens(client, served_model, turns=3)
            return MeasuredReadiness(template_tokens=one, message_tokens=max(0, -(-(three - one) // 2)))
        if common_pb2.OPERATION_EMBEDDING in operations:
            request = inference_pb2.EmbedRequest(model=served_model, input=[_TEXT])
            answer = await client.embed(request, served_model=served_model)
            return MeasuredReadiness(template_tokens=answer.usage.input_tokens)
        return MeasuredReadiness()

    async def probe_live(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> None:
        """Makes the engine answer."""
        client = self._client(address)
        if common_pb2.OPERATION_CHAT in operations:
            await self._chat_tokens(client, served_model, turns=1)
        elif common_pb2.OPERATION_EMBEDDING in operations:
            request = inference_pb2.EmbedRequest(model=served_model, input=[_TEXT])
            await client.embed(request, served_model=served_model)

    async def _chat_tokens(self, client: EngineClient, served_model: str, *, turns: int) -> int:
        roles = (inference_pb2.ROLE_USER, inference_pb2.ROLE_ASSISTANT, inference_pb2.ROLE_USER)
        messages = [inference_pb2.Message(role=role, parts=[inference_pb2.Part(text=_TEXT)]) for role in roles[:turns]]
        request = inference_pb2.GenerateRequest(
            model=served_model, conversation=inference_pb2.Conversation(messages=messages)
        )
        generation = client.generate(request, served_model=served_model, output_tokens_max=1, generation_id="probe")
        async with generation:
            async for _ in generation:
                pass
        usage = generation.usage
        if usage.input_tokens <= 0:
            raise EngineError(f"engine {self._quirks.engine} at work did not say how many tokens it read")
        return usage.input_tokens

    def _client(self, address: str) -> EngineClient:
        return EngineClient(f"http://{address}", self._session, self._quirks, idle_timeout_s=_PROBE_IDLE_S)

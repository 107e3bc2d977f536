"""Learns whether an engine works by making it work: one token, or one embedding."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass

import aiohttp

from enginehouse.adapters.engine import EngineClient
from enginehouse.contract import EngineError, EnginehouseError, Reason
from enginehouse.engines import EngineRegistry
from enginehouse.services.node.engine_clients import engine_client
from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2

_PROBE_IDLE_S = 30.0
_TEXT = "a"
_NO_TOOLS = (Reason.ENGINE_REFUSED, Reason.UNSUPPORTED_FIELD)
_TOOL = inference_pb2.Tool(name="a", description="a", parameters='{"type":"object","properties":{}}')


@dataclass(frozen=True, slots=True)
class MeasuredReadiness:
    """What the first answers taught us, in tokens. Both are upper bounds."""

    template_tokens: int = 0
    message_tokens: int = 0


class DialectProber:
    """A prober for one kind of engine.

    Args:
        engine: its kind.
        api: what it is asked in; `EngineSettings.api`.
        session: for its connections; it stays the caller's.
        registry: knows the kind. None: the engines that are installed.
        features: of the replica that is asked, where its settings add to its kind's. None: its kind's.

    Raises:
        RequestError: there is no such kind.
    """

    def __init__(
        self,
        engine: str,
        api: admin_pb2.EngineApi.ValueType,
        session: aiohttp.ClientSession,
        registry: EngineRegistry | None = None,
        features: Collection[common_pb2.Feature.ValueType] | None = None,
    ) -> None:
        self._engine = engine
        self._api = api
        self._session = session
        if features is None:
            features = (registry or EngineRegistry()).descriptor(engine).traits.features
        self._offers_tools = common_pb2.FEATURE_TOOLS in features

    async def probe_ready(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> MeasuredReadiness:
        """Makes the engine answer, and measures what its template adds to a text of one byte.

        One byte is at least one token, so what is counted for it bounds the template from above. Where tools are
        offered the bound covers a request with one tiny tool as well: templates put instructions of their own before
        the first tool, kilobytes of them at times, and they are in no request's text. What every further tool adds is
        its JSON, whose bytes are counted.
        """
        async with self._client(address) as client:
            if common_pb2.OPERATION_CHAT in operations:
                return await self._measured_by_chats(client, served_model)
            if common_pb2.OPERATION_EMBEDDING in operations:
                request = inference_pb2.EmbedRequest(model=served_model, input=[_TEXT])
                answer = await client.embed(request, served_model=served_model)
                return MeasuredReadiness(template_tokens=answer.usage.input_tokens)
            return MeasuredReadiness()

    async def probe_live(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> None:
        """Makes the engine answer."""
        async with self._client(address) as client:
            if common_pb2.OPERATION_CHAT in operations:
                await self._chat_tokens(client, served_model, turns=1)
            elif common_pb2.OPERATION_EMBEDDING in operations:
                request = inference_pb2.EmbedRequest(model=served_model, input=[_TEXT])
                await client.embed(request, served_model=served_model)

    async def _measured_by_chats(self, client: EngineClient, served_model: str) -> MeasuredReadiness:
        one = await self._chat_tokens(client, served_model, turns=1)
        three = await self._chat_tokens(client, served_model, turns=3)
        with_tool = await self._tool_tokens(client, served_model) if self._offers_tools else 0
        return MeasuredReadiness(template_tokens=max(one, with_tool), message_tokens=max(0, -(-(three - one) // 2)))

    async def _tool_tokens(self, client: EngineClient, served_model: str) -> int:
        """Tokens of a conversation of one message and one tool; 0 when the engine takes no tools with this model."""
        try:
            return await self._chat_tokens(client, served_model, turns=1, tools=[_TOOL])
        except EnginehouseError as error:
            if error.reason not in _NO_TOOLS:
                raise
            return 0  # so it will refuse every request that brings some

    async def _chat_tokens(
        self, client: EngineClient, served_model: str, *, turns: int, tools: Sequence[inference_pb2.Tool] = ()
    ) -> int:
        roles = (inference_pb2.ROLE_USER, inference_pb2.ROLE_ASSISTANT, inference_pb2.ROLE_USER)
        messages = [inference_pb2.Message(role=role, parts=[inference_pb2.Part(text=_TEXT)]) for role in roles[:turns]]
        request = inference_pb2.GenerateRequest(
            model=served_model, conversation=inference_pb2.Conversation(messages=messages), tools=tools
        )
        generation = client.generate(request, served_model=served_model, output_tokens_max=1, generation_id="probe")
        async with generation:
            async for _ in generation:
                pass
        usage = generation.usage
        if usage.input_tokens <= 0:
            raise EngineError(f"engine {self._engine} at work did not say how many tokens it read")
        return usage.input_tokens

    def _client(self, address: str) -> AbstractAsyncContextManager[EngineClient]:
        return aclosing(engine_client(self._engine, self._api, address, self._session, idle_timeout_s=_PROBE_IDLE_S))

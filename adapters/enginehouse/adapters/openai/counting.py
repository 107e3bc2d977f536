"""Tokens of a prompt, counted by the engine that would read it: its chat template included."""

import asyncio
from collections.abc import Mapping

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._json import dumps, loads
from enginehouse.adapters.engine import NO_HEADERS
from enginehouse.adapters.http import EngineCall, EngineConnection
from enginehouse.adapters.lacks import cannot
from enginehouse.adapters.openai.quirks import OpenAIQuirks, TokenCounter
from enginehouse.adapters.openai.read import AnswerReader
from enginehouse.adapters.openai.write import write_messages
from enginehouse.contract import EngineError, EnginehouseError
from enginehouse.v1 import common_pb2, inference_pb2

_CONCLUDE_TIMEOUT_S = 2.0


async def count_prompt(
    connection: EngineConnection,
    quirks: OpenAIQuirks,
    request: inference_pb2.CountTokensRequest,
    served_model: str,
    headers: Mapping[str, str],
) -> int:
    """Counts.

    Raises:
        RequestError: the engine cannot count it.
        EngineError: the engine refused, failed or hung.
    """
    if any(part.HasField("image") for message in request.conversation.messages for part in message.parts):
        raise unsupported("an image", f"the engine {quirks.engine} counts the tokens of text alone")
    return await _Counter(connection, quirks, request, served_model, headers).count()


async def conclude_by_counting(
    reader: AnswerReader,
    connection: EngineConnection,
    quirks: OpenAIQuirks,
    request: inference_pb2.GenerateRequest,
    served_model: str,
) -> None:
    """Gives an answer that was left before the engine counted the tokens of its prompt, if they can be counted."""
    if not reader.lacks_count:
        return
    asked = inference_pb2.CountTokensRequest(model=request.model)
    if request.HasField("conversation"):
        asked.conversation.CopyFrom(request.conversation)
    else:
        asked.prompt = request.prompt
    try:
        async with asyncio.timeout(_CONCLUDE_TIMEOUT_S):
            reader.prompt_tokens = await count_prompt(connection, quirks, asked, served_model, NO_HEADERS)
    except (EnginehouseError, TimeoutError):
        return  # so the upper bound stands


class _Counter:
    """One question."""

    def __init__(
        self,
        connection: EngineConnection,
        quirks: OpenAIQuirks,
        request: inference_pb2.CountTokensRequest,
        served_model: str,
        headers: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._quirks = quirks
        self._request = request
        self._served_model = served_model
        self._headers = headers

    async def count(self) -> int:
        match self._quirks.token_counter:
            case TokenCounter.TOKENIZE:
                return await self._by_tokenizing()
            case TokenCounter.TOKENIZE_PROMPT:
                if self._request.HasField("conversation"):
                    advice = f"the engine {self._quirks.engine} counts the tokens of a prompt alone"
                    raise unsupported("a conversation", advice)
                return await self._by_tokenizing()
            case TokenCounter.TEMPLATE_THEN_TOKENIZE:
                return await self._by_template()
            case TokenCounter.CHAT_TOKENIZE:
                return await self._by_chat_tokenizing()
            case TokenCounter.NONE:
                raise cannot(self._quirks.engine, common_pb2.OPERATION_COUNT_TOKENS)

    async def _by_tokenizing(self) -> int:
        members = self._prompt() | {"model": self._served_model}
        count = _members(await self._ask("/tokenize", members)).get("count")
        if not isinstance(count, int):
            raise self._no_count("/tokenize")
        return count

    async def _by_template(self) -> int:
        text: object = self._request.prompt
        if self._request.HasField("conversation"):
            text = _members(await self._ask("/apply-template", self._prompt())).get("prompt")
        # As the engine's own completions do: the template's marks become single tokens.
        members = {"content": text, "add_special": True, "parse_special": True}
        tokens = _members(await self._ask("/tokenize", members)).get("tokens")
        if not isinstance(text, str) or not isinstance(tokens, list):
            raise self._no_count("/apply-template and /tokenize")
        return len(tokens)

    async def _by_chat_tokenizing(self) -> int:
        if self._request.HasField("conversation"):
            route = "/chat_tokenize"
            tokens = _members(await self._ask(route, self._prompt())).get("tokenize_response")
        else:
            route = "/tokenize"
            tokens = await self._ask(route, {"inputs": self._request.prompt})
        if not isinstance(tokens, list):
            raise self._no_count(route)
        return len(tokens)

    def _prompt(self) -> dict[str, object]:
        if self._request.HasField("conversation"):
            return write_messages(self._request.conversation, self._request.tools, self._quirks)
        return {"prompt": self._request.prompt}

    async def _ask(self, path: str, members: dict[str, object]) -> object:
        return loads(await self._connection.post(EngineCall(path, dumps(members)), self._headers))

    def _no_count(self, route: str) -> EngineError:
        return EngineError(f"the engine {self._quirks.engine} answered {route} without a count")


def _members(answer: object) -> dict[str, object]:
    return answer if isinstance(answer, dict) else {}

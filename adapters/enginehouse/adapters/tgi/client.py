"""One TGI, asked by its own routes in canonical words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import aiohttp

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._json import loads
from enginehouse.adapters.canonical import check_count_tokens, check_embed, check_generate, check_rerank
from enginehouse.adapters.engine import NO_HEADERS
from enginehouse.adapters.http import EngineCall, EngineConnection, Generation
from enginehouse.adapters.lacks import cannot
from enginehouse.adapters.tgi.read import StreamReader
from enginehouse.adapters.tgi.write import ENGINE, check, write_chat, write_generate, write_prompt
from enginehouse.contract import EngineError
from enginehouse.v1 import common_pb2, inference_pb2


@dataclass(frozen=True, slots=True)
class _Beginning:
    """How a templated text differs from what the engine reads: it adds the tokenizer's own first token to any text.

    Attributes:
        text: that the template has written already and that is left out, or a model would read it twice.
        tokens_added: that the engine reads beyond those of the templated text.
    """

    text: str
    tokens_added: int


class TgiEngine:
    """One TGI.

    A conversation is written by the engine's own chat template first (`/chat_tokenize`), and a prompt is counted
    (`/tokenize`): so what a cut stream has used is known to the token.

    Args:
        base_url: like ``http://127.0.0.1:8000``.
        session: see `open_session`; it stays the caller's.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two pieces of an answer, the first included: a long prompt takes its time.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        *,
        connect_timeout_s: float = 5.0,
        idle_timeout_s: float = 300.0,
    ) -> None:
        self._connection = EngineConnection(
            base_url, session, engine=ENGINE, connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s
        )
        self._beginning: _Beginning | None = None  # the same for every conversation

    def generate(
        self,
        request: inference_pb2.GenerateRequest,
        *,
        served_model: str,
        output_tokens_max: int,
        generation_id: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Generation:
        """See `EngineClient`."""
        check_generate(request)
        check(request)
        reader = StreamReader(generation_id, request)
        prepare = partial(self._prepare, request, output_tokens_max, reader, headers)
        return Generation(self._connection, prepare, reader, headers)

    async def embed(
        self,
        request: inference_pb2.EmbedRequest,
        *,
        served_model: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> inference_pb2.EmbedResponse:
        """TGI does not embed.

        Raises:
            RequestError: always.
        """
        check_embed(request)
        raise cannot(ENGINE, common_pb2.OPERATION_EMBEDDING)

    async def rerank(
        self,
        request: inference_pb2.RerankRequest,
        *,
        served_model: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> inference_pb2.RerankResponse:
        """TGI does not rank.

        Raises:
            RequestError: always.
        """
        check_rerank(request)
        raise cannot(ENGINE, common_pb2.OPERATION_RERANK)

    async def count_tokens(
        self,
        request: inference_pb2.CountTokensRequest,
        *,
        served_model: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> inference_pb2.CountTokensResponse:
        """See `EngineClient`."""
        check_count_tokens(request)
        if any(part.HasField("image") for message in request.conversation.messages for part in message.parts):
            raise unsupported("an image", f"the engine {ENGINE} counts the tokens of text alone")
        if request.HasField("conversation"):
            _, tokens = await self._templated(request, headers)
        else:
            tokens = len(await self._tokens_of(request.prompt, headers))
        return inference_pb2.CountTokensResponse(model=request.model, input_tokens=tokens)

    async def aclose(self) -> None:
        """Gives back nothing: the session is the caller's."""

    async def _prepare(
        self,
        request: inference_pb2.GenerateRequest,
        output_tokens_max: int,
        reader: StreamReader,
        headers: Mapping[str, str],
    ) -> EngineCall:
        if request.HasField("conversation"):
            inputs, reader.prompt_tokens = await self._templated(request, headers)
        else:
            inputs = request.prompt
            reader.prompt_tokens = len(await self._tokens_of(inputs, headers))
        return write_generate(request, inputs, output_tokens_max=output_tokens_max)

    async def _templated(
        self,
        request: inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest,
        headers: Mapping[str, str],
    ) -> tuple[str, int]:
        """A conversation as it is to be sent, and its tokens."""
        answer = loads(await self._connection.post(write_chat(request), headers))
        members = answer if isinstance(answer, dict) else {}
        text, tokens = members.get("templated_text"), members.get("tokenize_response")
        if not isinstance(text, str) or not isinstance(tokens, list):
            raise EngineError(f"the engine {ENGINE} answered /chat_tokenize without a text and its tokens")
        if self._beginning is None:
            self._beginning = _beginning(text, tokens, await self._tokens_of(text, headers))
        return text.removeprefix(self._beginning.text), len(tokens) + self._beginning.tokens_added

    async def _tokens_of(self, text: str, headers: Mapping[str, str]) -> list[object]:
        tokens = loads(await self._connection.post(write_prompt(text), headers))
        if not isinstance(tokens, list):
            raise EngineError(f"the engine {ENGINE} answered /tokenize without tokens")
        return tokens


def _beginning(text: str, templated: list[object], read: list[object]) -> _Beginning:
    """What the engine puts before a text of its own accord, seen in the tokens of the same text with and without it."""
    added = max(0, len(read) - len(templated))
    first = templated[0] if templated else None
    if added and isinstance(first, dict) and _id(read[0]) == _id(first) and isinstance(first.get("stop"), int):
        return _Beginning(text[: first["stop"]], added - 1)
    return _Beginning("", added)


def _id(token: object) -> object:
    return token.get("id") if isinstance(token, dict) else None

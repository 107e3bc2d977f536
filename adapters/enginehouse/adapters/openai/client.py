"""One engine that speaks OpenAI's HTTP API, asked in canonical words."""

from collections.abc import Mapping

import aiohttp

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._json import dumps, loads
from enginehouse.adapters.canonical import check_count_tokens, check_embed, check_generate, check_rerank
from enginehouse.adapters.openai.connection import EngineConnection
from enginehouse.adapters.openai.forwarding import ForwardedAnswer
from enginehouse.adapters.openai.generation import Generation
from enginehouse.adapters.openai.quirks import OpenAIQuirks, TokenCounter
from enginehouse.adapters.openai.read import AnswerReader, read_embeddings, read_ranking
from enginehouse.adapters.openai.write import EngineCall, write_embed, write_generate, write_messages, write_rerank
from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.v1 import inference_pb2

_NO_HEADERS: Mapping[str, str] = {}


class EngineClient:
    """One engine.

    Args:
        base_url: like ``http://127.0.0.1:8000``.
        session: see `open_session`; it stays the caller's.
        quirks: the engine's.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two pieces of an answer, the first included: a long prompt takes its time.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        quirks: OpenAIQuirks,
        *,
        connect_timeout_s: float = 5.0,
        idle_timeout_s: float = 300.0,
    ) -> None:
        self._quirks = quirks
        self._connection = EngineConnection(
            base_url,
            session,
            engine=quirks.engine,
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=idle_timeout_s,
        )

    def generate(
        self,
        request: inference_pb2.GenerateRequest,
        *,
        served_model: str,
        output_tokens_max: int,
        generation_id: str,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Generation:
        """Generates; the request is sent when the first step is asked for.

        Args:
            request: canonical.
            served_model: what the engine knows the model by.
            output_tokens_max: the bound that the decision held for, for one choice.
            generation_id: written into every step.
            headers: sent along, like `x-request-id` and `traceparent`.

        Raises:
            RequestError: the request is malformed, or asks for what the engine cannot do.
        """
        check_generate(request)
        call = write_generate(
            request, served_model=served_model, output_tokens_max=output_tokens_max, quirks=self._quirks
        )
        choices = max(1, request.sampling.choices)
        reader = AnswerReader(generation_id=generation_id, model=request.model, choices=choices, quirks=self._quirks)
        return Generation(self._connection, call, reader, headers)

    async def embed(
        self, request: inference_pb2.EmbedRequest, *, served_model: str, headers: Mapping[str, str] = _NO_HEADERS
    ) -> inference_pb2.EmbedResponse:
        """Embeds.

        Raises:
            RequestError: the request is malformed, or asks for what the engine cannot do.
            EngineError: the engine refused, failed or hung.
        """
        check_embed(request)
        call = write_embed(request, served_model=served_model, quirks=self._quirks)
        body = await self._connection.post(call, headers)
        return read_embeddings(body, model=request.model, count=len(request.input), engine=self._quirks.engine)

    async def rerank(
        self, request: inference_pb2.RerankRequest, *, served_model: str, headers: Mapping[str, str] = _NO_HEADERS
    ) -> inference_pb2.RerankResponse:
        """Ranks.

        Raises:
            RequestError: the request is malformed.
            EngineError: the engine refused, failed or hung.
        """
        check_rerank(request)
        body = await self._connection.post(write_rerank(request, served_model=served_model), headers)
        return read_ranking(body, model=request.model, count=len(request.documents), engine=self._quirks.engine)

    async def count_tokens(
        self, request: inference_pb2.CountTokensRequest, *, served_model: str, headers: Mapping[str, str] = _NO_HEADERS
    ) -> inference_pb2.CountTokensResponse:
        """Counts the tokens of a prompt as the engine would read it, its chat template included.

        Raises:
            RequestError: the request is malformed, or the engine cannot count it.
            EngineError: the engine refused, failed or hung.
        """
        check_count_tokens(request)
        if any(part.HasField("image") for message in request.conversation.messages for part in message.parts):
            raise unsupported("an image", f"the engine {self._quirks.engine} counts the tokens of text alone")
        match self._quirks.token_counter:
            case TokenCounter.TOKENIZE:
                tokens = await self._count_by_tokenizing(request, served_model, headers)
            case TokenCounter.TEMPLATE_THEN_TOKENIZE:
                tokens = await self._count_by_template(request, headers)
            case TokenCounter.NONE:
                message = f"the engine {self._quirks.engine} cannot count tokens; ask a model on another engine"
                raise RequestError(message, Reason.CAPABILITY_NOT_FOUND)
        return inference_pb2.CountTokensResponse(model=request.model, input_tokens=tokens)

    async def forward(
        self, path: str, body: bytes, headers: Mapping[str, str] = _NO_HEADERS, *, choices: int = 1
    ) -> ForwardedAnswer:
        """Posts a body as it is, for a client that speaks the engine's own dialect. Returns once headers are here.

        Args:
            path: of the engine's API.
            body: what is posted.
            headers: sent along.
            choices: how many a whole stream has at least.

        Raises:
            EngineError: the engine was not reached, hung up, or was silent for too long.
        """
        response = await self._connection.open(EngineCall(path, body), headers)
        return ForwardedAnswer(self._connection, response, self._quirks.usage_scope, choices)

    async def _count_by_tokenizing(
        self, request: inference_pb2.CountTokensRequest, served_model: str, headers: Mapping[str, str]
    ) -> int:
        members = self._prompt(request) | {"model": served_model}
        count = (await self._ask("/tokenize", members, headers)).get("count")
        if not isinstance(count, int):
            raise self._no_count("/tokenize")
        return count

    async def _count_by_template(self, request: inference_pb2.CountTokensRequest, headers: Mapping[str, str]) -> int:
        text: object = request.prompt
        if request.HasField("conversation"):
            text = (await self._ask("/apply-template", self._prompt(request), headers)).get("prompt")
        # As the engine's own completions do: the template's marks become single tokens.
        members = {"content": text, "add_special": True, "parse_special": True}
        tokens = (await self._ask("/tokenize", members, headers)).get("tokens")
        if not isinstance(text, str) or not isinstance(tokens, list):
            raise self._no_count("/apply-template and /tokenize")
        return len(tokens)

    def _prompt(self, request: inference_pb2.CountTokensRequest) -> dict[str, object]:
        if request.HasField("conversation"):
            return write_messages(request.conversation, request.tools, self._quirks)
        return {"prompt": request.prompt}

    async def _ask(self, path: str, members: dict[str, object], headers: Mapping[str, str]) -> dict[str, object]:
        answer = loads(await self._connection.post(EngineCall(path, dumps(members)), headers))
        return answer if isinstance(answer, dict) else {}

    def _no_count(self, route: str) -> EngineError:
        return EngineError(f"the engine {self._quirks.engine} answered {route} without a count")

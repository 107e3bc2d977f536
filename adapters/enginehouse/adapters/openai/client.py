"""One engine that speaks OpenAI's HTTP API, asked in canonical words."""

from collections.abc import Mapping
from functools import partial

import aiohttp

from enginehouse.adapters.canonical import check_count_tokens, check_embed, check_generate, check_rerank
from enginehouse.adapters.engine import NO_HEADERS
from enginehouse.adapters.http import EngineCall, EngineConnection, Generation
from enginehouse.adapters.openai.counting import conclude_by_counting, count_prompt
from enginehouse.adapters.openai.forwarding import ForwardedAnswer, UsageFrame
from enginehouse.adapters.openai.quirks import Forwarding, OpenAIQuirks, RunningUsage
from enginehouse.adapters.openai.read import AnswerReader, read_embeddings, read_ranking
from enginehouse.adapters.openai.write import stream_members, write_embed, write_generate, write_rerank
from enginehouse.v1 import inference_pb2


class OpenAIEngine:
    """One engine that speaks OpenAI's HTTP API.

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

    @property
    def can_forward(self) -> bool:
        """Whether its answers are OpenAI's own, so that a client of that API can have them as they are."""
        return self._quirks.forwarding is Forwarding.AS_IS

    @property
    def stream_members(self) -> str:
        """JSON members, without braces, by which a stream that is forwarded tells its usage."""
        return stream_members(self._quirks)

    def generate(
        self,
        request: inference_pb2.GenerateRequest,
        *,
        served_model: str,
        output_tokens_max: int,
        generation_id: str,
        headers: Mapping[str, str] = NO_HEADERS,
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
        reader = AnswerReader(
            generation_id=generation_id,
            model=request.model,
            choices=max(1, request.sampling.choices),
            quirks=self._quirks,
            stop=request.sampling.stop,
        )
        conclude = None
        if self._quirks.running_usage is RunningUsage.ONE_PER_CHUNK and not request.tools:
            # With tools a call is held back until its name is known, so chunks are no measure.
            conclude = partial(conclude_by_counting, reader, self._connection, self._quirks, request, served_model)
        return Generation(self._connection, partial(_known, call), reader, headers, conclude)

    async def embed(
        self, request: inference_pb2.EmbedRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
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
        self, request: inference_pb2.RerankRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.RerankResponse:
        """Ranks.

        Raises:
            RequestError: the request is malformed, or the engine cannot rank.
            EngineError: the engine refused, failed or hung.
        """
        check_rerank(request)
        call = write_rerank(request, served_model=served_model, quirks=self._quirks)
        body = await self._connection.post(call, headers)
        return read_ranking(body, model=request.model, count=len(request.documents), engine=self._quirks.engine)

    async def count_tokens(
        self, request: inference_pb2.CountTokensRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.CountTokensResponse:
        """Counts the tokens of a prompt as the engine would read it, its chat template included.

        Raises:
            RequestError: the request is malformed, or the engine cannot count it.
            EngineError: the engine refused, failed or hung.
        """
        check_count_tokens(request)
        tokens = await count_prompt(self._connection, self._quirks, request, served_model, headers)
        return inference_pb2.CountTokensResponse(model=request.model, input_tokens=tokens)

    async def aclose(self) -> None:
        """Gives back nothing: the session is the caller's."""

    async def forward(
        self,
        path: str,
        body: bytes,
        headers: Mapping[str, str] = NO_HEADERS,
        *,
        choices: int = 1,
        usage_frame: UsageFrame = UsageFrame.PASSED,
    ) -> ForwardedAnswer:
        """Posts a body as it is, for a client that speaks the engine's own dialect. Returns once headers are here.

        Only for an engine that `can_forward`.

        Args:
            path: of the engine's API.
            body: what is posted.
            headers: sent along.
            choices: how many a whole stream has at least.
            usage_frame: what becomes of it.

        Raises:
            EngineError: the engine was not reached, hung up, or was silent for too long.
        """
        response = await self._connection.open(EngineCall(path, body), headers)
        return ForwardedAnswer(self._connection, response, self._quirks.usage_scope, choices, usage_frame)


async def _known(call: EngineCall) -> EngineCall:
    return call

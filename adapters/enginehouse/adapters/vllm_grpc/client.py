"""One engine that speaks vLLM's gRPC service, asked in canonical words."""

import asyncio
import secrets
from collections.abc import Mapping

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._token_engine import TokenEngine
from enginehouse.adapters.canonical import check_embed
from enginehouse.adapters.engine import NO_HEADERS
from enginehouse.adapters.vllm_grpc.dialect import VllmDialect
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2, vllm_engine_pb2

# The service takes one text at a time; this many are on their way side by side.
_TEXTS_SIDE_BY_SIDE = 16


class VllmGrpcEngine(TokenEngine):
    """One vLLM that was started with `--grpc`.

    Args:
        address: host:port.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two messages of an answer, the first included.
    """

    def __init__(self, address: str, *, connect_timeout_s: float = 5.0, idle_timeout_s: float = 300.0) -> None:
        super().__init__(VllmDialect(), address, connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s)

    async def embed(
        self, request: inference_pb2.EmbedRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.EmbedResponse:
        """Embeds, text by text.

        Raises:
            RequestError: the request is malformed, or asks for what the service cannot do.
            EngineError: the engine refused, failed or hung.
        """
        check_embed(request)
        if request.HasField("dimensions"):
            raise unsupported("dimensions", f"the engine {self._dialect.engine} cannot do it; leave it out")
        known = await self._learning.get()
        places = asyncio.Semaphore(_TEXTS_SIDE_BY_SIDE)

        async def embedded(text: str) -> vllm_engine_pb2.VllmEmbedResponse:
            async with places:
                ids = await known.encode_text(text)
                if 0 < known.facts.context_tokens_max < len(ids):
                    raise self._too_long(len(ids), known.facts.context_tokens_max)
                tokens = vllm_engine_pb2.VllmTokenizedInput(input_ids=ids)
                asked = vllm_engine_pb2.VllmEmbedRequest(request_id=f"embed-{secrets.token_hex(8)}", tokenized=tokens)
                answer = vllm_engine_pb2.VllmEmbedResponse
                return await self._channel.call(self._dialect.method("Embed"), asked, answer, headers)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(embedded(text)) for text in request.input]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        answers = [task.result() for task in tasks]
        return inference_pb2.EmbedResponse(
            model=request.model,
            embeddings=[
                inference_pb2.Embedding(index=index, values=one.embedding) for index, one in enumerate(answers)
            ],
            usage=common_pb2.Usage(
                input_tokens=sum(one.prompt_tokens for one in answers), method=common_pb2.USAGE_METHOD_ENGINE
            ),
        )

    def _too_long(self, tokens: int, context: int) -> RequestError:
        engine = self._dialect.engine
        message = f"a text does not fit the context of the engine {engine}: {tokens} tokens of {context}; shorten it"
        return RequestError(message, Reason.CONTEXT_TOO_LONG, metadata={"engine": engine})

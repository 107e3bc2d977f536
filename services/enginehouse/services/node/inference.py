"""InferenceService: canonical requests, answered step by step."""

from collections.abc import AsyncIterator

import grpc

from enginehouse.services.node.calls import Calls
from enginehouse.v1 import inference_pb2, inference_pb2_grpc

_Context = grpc.aio.ServicerContext


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """See protos/enginehouse/v1/inference.proto."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def Generate(  # noqa: N802 (gRPC's name)
        self,
        request: inference_pb2.GenerateRequest,
        context: _Context[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse],
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Steps, the last of which is `finished`; or an error."""
        async with self._calls.call(context) as call:
            generation = call.client.generate(
                request,
                served_model=call.attempt.served_model,
                output_tokens_max=call.ticket.output_tokens_max,
                generation_id=call.ticket.request_id,
                headers=call.headers,
            )
            try:
                async with generation:
                    async for step in generation:
                        call.sends()
                        call.usage = generation.usage
                        yield step
                call.is_whole = True
            finally:
                call.usage = generation.usage

    async def Embed(  # noqa: N802
        self,
        request: inference_pb2.EmbedRequest,
        context: _Context[inference_pb2.EmbedRequest, inference_pb2.EmbedResponse],
    ) -> inference_pb2.EmbedResponse:
        """One vector per input."""
        async with self._calls.call(context) as call:
            with call.unknown_usage():
                answer = await call.client.embed(request, served_model=call.attempt.served_model, headers=call.headers)
            call.usage, call.is_whole = answer.usage, True
            return answer

    async def Rerank(  # noqa: N802
        self,
        request: inference_pb2.RerankRequest,
        context: _Context[inference_pb2.RerankRequest, inference_pb2.RerankResponse],
    ) -> inference_pb2.RerankResponse:
        """Documents by relevance, best first."""
        async with self._calls.call(context) as call:
            with call.unknown_usage():
                answer = await call.client.rerank(request, served_model=call.attempt.served_model, headers=call.headers)
            call.usage, call.is_whole = answer.usage, True
            return answer

    async def CountTokens(  # noqa: N802
        self,
        request: inference_pb2.CountTokensRequest,
        context: _Context[inference_pb2.CountTokensRequest, inference_pb2.CountTokensResponse],
    ) -> inference_pb2.CountTokensResponse:
        """The prompt's tokens. Nothing is generated, so nothing is charged."""
        async with self._calls.call(context) as call:
            answer = await call.client.count_tokens(
                request, served_model=call.attempt.served_model, headers=call.headers
            )
            call.is_whole = True
            return answer

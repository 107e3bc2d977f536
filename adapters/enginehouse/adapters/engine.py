"""What every engine can be asked, whatever it speaks: the one face that a node knows."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Protocol, Self

from enginehouse.v1 import common_pb2, inference_pb2

NO_HEADERS: Mapping[str, str] = {}


class EngineGeneration(Protocol):
    """The steps of one generation: they end with `finished`, or with an error. Closing it aborts the engine's work."""

    @property
    def usage(self) -> common_pb2.Usage:
        """What was used so far, also after an error or a close.

        ENGINE after the end, ENGINE_PARTIAL while the engine counts along, ADAPTER where tokens were counted as they
        passed, NONE when it was not asked or failed before its first token, and UPPER_BOUND when it may have generated
        and has not said.
        """
        ...

    def __aiter__(self) -> AsyncIterator[inference_pb2.GenerateResponse]:
        """Itself."""
        ...

    async def __anext__(self) -> inference_pb2.GenerateResponse:
        """The next step.

        Raises:
            EngineError: the engine refused, failed, hung, or ended early.
            RequestError: CONTEXT_TOO_LONG.
        """
        ...

    async def aclose(self) -> None:
        """Aborts the request if it still runs."""
        ...

    async def __aenter__(self) -> Self:
        """Itself, to be closed on exit."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes it."""
        ...


class EngineClient(Protocol):
    """One engine, asked in canonical words.

    Of every call: `served_model` is what the engine knows the model by; `headers` are sent along, like `x-request-id`
    and `traceparent`.
    """

    def generate(
        self,
        request: inference_pb2.GenerateRequest,
        *,
        served_model: str,
        output_tokens_max: int,
        generation_id: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> EngineGeneration:
        """Generates; the request is sent when the first step is asked for.

        Args:
            request: canonical.
            served_model: what the engine knows the model by.
            output_tokens_max: the bound that the decision held for, for one choice.
            generation_id: written into every step.
            headers: sent along.

        Raises:
            RequestError: the request is malformed, or asks for what the engine cannot do.
        """
        ...

    async def embed(
        self, request: inference_pb2.EmbedRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.EmbedResponse:
        """Embeds.

        Raises:
            RequestError: the request is malformed, or asks for what the engine cannot do.
            EngineError: the engine refused, failed or hung.
        """
        ...

    async def rerank(
        self, request: inference_pb2.RerankRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.RerankResponse:
        """Ranks.

        Raises:
            RequestError: the request is malformed, or asks for what the engine cannot do.
            EngineError: the engine refused, failed or hung.
        """
        ...

    async def count_tokens(
        self, request: inference_pb2.CountTokensRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.CountTokensResponse:
        """Counts the tokens of a prompt as the engine would read it, its chat template included.

        Raises:
            RequestError: the request is malformed, or the engine cannot count it.
            EngineError: the engine refused, failed or hung.
        """
        ...

    async def aclose(self) -> None:
        """Gives back what it opened for itself: its own channel. A session that it was given stays the caller's."""
        ...

"""One engine that is asked in token ids, in canonical words."""

from collections.abc import Mapping

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._token_engine.channel import EngineChannel
from enginehouse.adapters._token_engine.dialect import TokenDialect
from enginehouse.adapters._token_engine.generation import Order, TokenGeneration
from enginehouse.adapters._token_engine.knowledge import Learning
from enginehouse.adapters.canonical import check_count_tokens, check_embed, check_generate, check_rerank
from enginehouse.adapters.engine import NO_HEADERS
from enginehouse.adapters.lacks import cannot, refuse_what_it_lacks
from enginehouse.v1 import common_pb2, inference_pb2

STOPS_MAX = 64


class TokenEngine:
    """One engine.

    The first request of a client fetches the engine's tokenizer. `user` and `metadata` stay here: the services have no
    field for them, and they change nothing in an answer.

    Args:
        dialect: of its service.
        address: host:port.
        connect_timeout_s: for a connection to be made.
        idle_timeout_s: between two messages of an answer, the first included: a long prompt takes its time.
    """

    def __init__(
        self, dialect: TokenDialect, address: str, *, connect_timeout_s: float = 5.0, idle_timeout_s: float = 300.0
    ) -> None:
        self._dialect = dialect
        self._channel = EngineChannel(
            address, engine=dialect.engine, connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s
        )
        self._learning = Learning(dialect, self._channel)

    def generate(
        self,
        request: inference_pb2.GenerateRequest,
        *,
        served_model: str,
        output_tokens_max: int,
        generation_id: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> TokenGeneration:
        """Generates; the request is sent when the first step is asked for.

        Args:
            request: canonical.
            served_model: not used: the service has one model and no name for it.
            output_tokens_max: the bound that the decision held for, for one choice.
            generation_id: written into every step.
            headers: sent along, like `x-request-id` and `traceparent`.

        Raises:
            RequestError: the request is malformed, or asks for what the engine cannot do.
        """
        check_generate(request)
        self._refuse_unsupported(request)
        self._dialect.check(request)
        order = Order(request, output_tokens_max, generation_id, headers)
        return TokenGeneration(self._dialect, self._channel, self._learning, order)

    async def embed(
        self, request: inference_pb2.EmbedRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.EmbedResponse:
        """The service does not embed.

        Raises:
            RequestError: always.
        """
        check_embed(request)
        raise cannot(self._dialect.engine, common_pb2.OPERATION_EMBEDDING)

    async def rerank(
        self, request: inference_pb2.RerankRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.RerankResponse:
        """The service does not rank.

        Raises:
            RequestError: always.
        """
        check_rerank(request)
        raise cannot(self._dialect.engine, common_pb2.OPERATION_RERANK)

    async def count_tokens(
        self, request: inference_pb2.CountTokensRequest, *, served_model: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> inference_pb2.CountTokensResponse:
        """Counts the tokens of a prompt as it would be sent to the engine, its chat template included.

        Raises:
            RequestError: the request is malformed, or has what the engine cannot read.
            EngineError: the engine's tokenizer cannot be had.
        """
        check_count_tokens(request)
        if request.HasField("conversation"):
            asked = inference_pb2.GenerateRequest(conversation=request.conversation, tools=request.tools)
            self._refuse_unsupported(asked)
        known = await self._learning.get()
        return inference_pb2.CountTokensResponse(model=request.model, input_tokens=len(await known.encode(request)))

    async def aclose(self) -> None:
        """Closes its connection."""
        await self._channel.aclose()

    def _refuse_unsupported(self, request: inference_pb2.GenerateRequest) -> None:
        """Refuses what the service has no way to ask for, or nobody here could read in its answer."""
        engine = self._dialect.engine
        lacking = frozenset(common_pb2.Feature.values()) - self._dialect.features
        refuse_what_it_lacks(request, engine=engine, features=lacking)
        messages = request.conversation.messages
        if messages and messages[-1].role == inference_pb2.ROLE_ASSISTANT:
            advice = f"the engine {engine} cannot go on from the assistant's own words; end with the user's"
            raise unsupported("messages", advice)
        if len(request.sampling.stop) > STOPS_MAX:
            advice = f"the engine {engine} is given {STOPS_MAX} stop sequences at most; send fewer"
            raise unsupported("sampling.stop", advice)

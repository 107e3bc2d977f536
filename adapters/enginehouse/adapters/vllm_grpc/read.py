"""Answers of vLLM's gRPC service."""

from collections import Counter
from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from enginehouse.adapters._token_engine import ChoiceEnd, TokenAnswer, TokenChance, TokenPiece
from enginehouse.adapters.usage import Count
from enginehouse.contract import EngineError
from enginehouse.v1 import inference_pb2
from enginehouse.v1.vllm_engine_pb2 import VllmGenerateComplete, VllmGenerateResponse, VllmOutputLogProbs

_REASONS: Mapping[str, inference_pb2.FinishReason.ValueType] = {
    "stop": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}


class VllmAnswer(TokenAnswer):
    """Reads one answer: chunks with the next tokens, and for each choice an end that repeats the last chunk's."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._generated: Counter[int] = Counter()

    def read(self, message: Message) -> Iterable[TokenPiece | ChoiceEnd]:
        """The tokens in a chunk; the end in a completion.

        Raises:
            EngineError: the message is neither.
        """
        if isinstance(message, VllmGenerateResponse):
            match message.WhichOneof("response"):
                case "chunk":
                    chunk = message.chunk
                    self._generated[chunk.index] += chunk.completion_tokens
                    count = Count(chunk.prompt_tokens, chunk.cached_tokens, self._generated[chunk.index])
                    chances = _chances(chunk.output_logprobs)
                    return [TokenPiece(chunk.index, tuple(chunk.token_ids), count, chances)]
                case "complete":
                    return self._complete(message.complete)
        raise EngineError(f"the engine {self._engine} sent a message with neither tokens nor an end")

    def _complete(self, complete: VllmGenerateComplete) -> list[TokenPiece | ChoiceEnd]:
        end = ChoiceEnd(complete.index, _REASONS.get(complete.finish_reason), complete.matched_stop_str)
        if complete.index in self._generated:
            return [end]
        count = Count(complete.prompt_tokens, complete.cached_tokens, complete.completion_tokens)
        chances = _chances(complete.output_logprobs)
        return [TokenPiece(complete.index, tuple(complete.output_ids), count, chances), end]


def _chances(logprobs: VllmOutputLogProbs) -> tuple[TokenChance, ...]:
    tops = [
        tuple(TokenChance(token_id, value) for token_id, value in zip(top.token_ids, top.values, strict=False))
        for top in logprobs.top_logprobs
    ]
    tops += [()] * (len(logprobs.token_ids) - len(tops))
    return tuple(
        TokenChance(token_id, value, top)
        for token_id, value, top in zip(logprobs.token_ids, logprobs.token_logprobs, tops, strict=False)
    )

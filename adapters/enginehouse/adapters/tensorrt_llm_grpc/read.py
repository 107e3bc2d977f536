"""Answers of TensorRT-LLM's gRPC service."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.message import Message

from enginehouse.adapters._token_engine import ChoiceEnd, TokenAnswer, TokenChance, TokenPiece
from enginehouse.adapters.usage import Count
from enginehouse.contract import EngineError
from enginehouse.v1 import inference_pb2
from enginehouse.v1.tensorrt_llm_engine_pb2 import (
    TensorRtLlmGenerateComplete,
    TensorRtLlmGenerateResponse,
    TensorRtLlmTokenLogprob,
)

_REASONS: Mapping[str, inference_pb2.FinishReason.ValueType] = {
    "stop": inference_pb2.FINISH_REASON_STOP,
    "stop_word": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}


class TensorRtLlmAnswer(TokenAnswer):
    """Reads one answer: chunks with the next tokens, and for each choice an end with all of its tokens.

    Those of a stop sequence are taken off the end's, after some of them may have come in chunks.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._seen: Counter[int] = Counter()

    def read(self, message: Message) -> Iterable[TokenPiece | ChoiceEnd]:
        """The tokens in a chunk; what is left of them and the end in a completion.

        Raises:
            EngineError: the message is neither.
        """
        if isinstance(message, TensorRtLlmGenerateResponse):
            match message.WhichOneof("response"):
                case "chunk":
                    chunk = message.chunk
                    self._seen[chunk.sequence_index] += len(chunk.token_ids)
                    count = Count(chunk.prompt_tokens, chunk.cached_tokens, chunk.completion_tokens)
                    chances = _chances(chunk.logprobs)
                    return [TokenPiece(chunk.sequence_index, tuple(chunk.token_ids), count, chances)]
                case "complete":
                    return self._complete(message.complete)
        raise EngineError(f"the engine {self._engine} sent a message with neither tokens nor an end")

    def _complete(self, complete: TensorRtLlmGenerateComplete) -> list[TokenPiece | ChoiceEnd]:
        index = complete.sequence_index
        seen = self._seen[index]
        count = Count(complete.prompt_tokens, complete.cached_tokens, complete.completion_tokens)
        rest = TokenPiece(index, tuple(complete.output_token_ids[seen:]), count, _chances(complete.logprobs[seen:]))
        return [rest, ChoiceEnd(index, _REASONS.get(complete.finish_reason), complete.matched_stop_str)]


def _chances(logprobs: Sequence[TensorRtLlmTokenLogprob]) -> tuple[TokenChance, ...]:
    return tuple(TokenChance(one.token_id, one.logprob, _tops(one)) for one in logprobs)


def _tops(logprob: TensorRtLlmTokenLogprob) -> tuple[TokenChance, ...]:
    return tuple(TokenChance(top.token_id, top.logprob) for top in logprob.top_logprobs)

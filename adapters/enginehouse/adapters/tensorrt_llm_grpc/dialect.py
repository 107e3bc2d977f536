"""TensorRT-LLM's messages (package trtllm, smg-grpc-proto 0.4; TensorRT-LLM 1.3, `grpc/smg`)."""

from pathlib import Path

from google.protobuf.message import Message

from enginehouse.adapters._token_engine import AskedTokens, EngineChannel, ModelFacts, TokenAnswer, TokenDialect
from enginehouse.adapters._token_engine.checks import check_seed, check_top_k
from enginehouse.adapters.tensorrt_llm_grpc.read import TensorRtLlmAnswer
from enginehouse.adapters.tensorrt_llm_grpc.write import SEED_MAX, SEED_MIN, write_generate
from enginehouse.v1 import common_pb2, inference_pb2, tensorrt_llm_engine_pb2


class TensorRtLlmDialect(TokenDialect):
    """The service TrtllmService.

    It parses neither tool calls nor reasoning, has no field for a priority, and knows LoRA adapters by number alone.
    """

    engine = "TensorRT-LLM (gRPC)"
    service = "trtllm.TrtllmService"
    features = frozenset(
        {
            common_pb2.FEATURE_JSON_SCHEMA,
            common_pb2.FEATURE_LOGPROBS,
            common_pb2.FEATURE_SEED,
            common_pb2.FEATURE_MULTIPLE_CHOICES,
            common_pb2.FEATURE_PENALTIES,
            common_pb2.FEATURE_PRESENCE_PENALTY,
            common_pb2.FEATURE_STOP_SEQUENCES,
            common_pb2.FEATURE_TOKEN_IDS,
            common_pb2.FEATURE_OUTPUT_TOKEN_IDS,
        }
    )
    response = tensorrt_llm_engine_pb2.TensorRtLlmGenerateResponse

    def check(self, request: inference_pb2.GenerateRequest) -> None:
        """Refuses a negative seed, and numbers of candidates below -1.

        Raises:
            RequestError: UNSUPPORTED_FIELD.
        """
        check_seed(request.sampling, SEED_MIN, SEED_MAX, self.engine)
        check_top_k(request.sampling, self.engine)

    def write(self, request: inference_pb2.GenerateRequest, asked: AskedTokens) -> Message:
        """See `write_generate`."""
        return write_generate(request, asked)

    def answer(self) -> TokenAnswer:
        """A reader for one answer."""
        return TensorRtLlmAnswer(self.engine)

    async def abort(self, channel: EngineChannel, request_id: str, *, timeout_s: float) -> None:
        """Makes the engine give a request up.

        Raises:
            EngineError: it could not be told.
        """
        asked = tensorrt_llm_engine_pb2.TensorRtLlmAbortRequest(request_id=request_id)
        answer = tensorrt_llm_engine_pb2.TensorRtLlmAbortResponse
        await channel.call(self.method("Abort"), asked, answer, {}, timeout_s=timeout_s)

    async def facts(self, channel: EngineChannel) -> ModelFacts:
        """The context, and the model's folder, which holds its tokenizer.

        Raises:
            EngineError: it was not reached, or failed.
        """
        asked = tensorrt_llm_engine_pb2.TensorRtLlmModelInfoRequest()
        answer = tensorrt_llm_engine_pb2.TensorRtLlmModelInfo
        info = await channel.call(self.method("GetModelInfo"), asked, answer, {})
        return ModelFacts(
            context_tokens_max=max(0, info.max_seq_len),
            tokenizer_folder=Path(info.model_id) if info.model_id else None,
        )

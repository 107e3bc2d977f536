"""vLLM's messages (package vllm.grpc.engine, smg-grpc-proto 0.4; smg-grpc-servicer 0.14)."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import Message

from enginehouse.adapters._json import loads
from enginehouse.adapters._token_engine import (
    AskedTokens,
    EngineChannel,
    ModelFacts,
    SamplingDefaults,
    TokenAnswer,
    TokenDialect,
)
from enginehouse.adapters._token_engine.checks import check_seed, check_top_k
from enginehouse.adapters.vllm_grpc.read import VllmAnswer
from enginehouse.adapters.vllm_grpc.write import SEED_MAX, SEED_MIN, write_generate
from enginehouse.v1 import common_pb2, inference_pb2, vllm_engine_pb2


class VllmDialect(TokenDialect):
    """The service VllmEngine.

    It parses neither tool calls nor reasoning, has no field for a LoRA adapter or a priority, and takes images as
    tensors alone.
    """

    engine = "vLLM (gRPC)"
    service = "vllm.grpc.engine.VllmEngine"
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
    response = vllm_engine_pb2.VllmGenerateResponse

    def check(self, request: inference_pb2.GenerateRequest) -> None:
        """Refuses a seed of more than 32 bits, and numbers of candidates below -1.

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
        return VllmAnswer(self.engine)

    async def abort(self, channel: EngineChannel, request_id: str, *, timeout_s: float) -> None:
        """Makes the engine give a request up.

        Raises:
            EngineError: it could not be told.
        """
        asked = vllm_engine_pb2.VllmAbortRequest(request_ids=[request_id])
        answer = vllm_engine_pb2.VllmAbortResponse
        await channel.call(self.method("Abort"), asked, answer, {}, timeout_s=timeout_s)

    async def facts(self, channel: EngineChannel) -> ModelFacts:
        """The context, the tokenizer's folder, and the sampling of the model's author, which the service leaves to us.

        Raises:
            EngineError: it was not reached, or failed.
        """
        asked = vllm_engine_pb2.VllmModelInfoRequest()
        info = await channel.call(self.method("GetModelInfo"), asked, vllm_engine_pb2.VllmModelInfo, {})
        return ModelFacts(
            context_tokens_max=info.max_context_length,
            tokenizer_folder=Path(info.tokenizer_path) if info.tokenizer_path else None,
            sampling=_defaults(info.default_sampling_params_json),
        )


def _defaults(text: str) -> SamplingDefaults:
    members = loads(text) if text else None
    if not isinstance(members, dict):
        return SamplingDefaults()
    top_k = _number(members, "top_k")
    return SamplingDefaults(
        temperature=_number(members, "temperature"),
        top_p=_number(members, "top_p"),
        top_k=None if top_k is None else max(0, int(top_k)),
        min_p=_number(members, "min_p"),
        repetition_penalty=_number(members, "repetition_penalty"),
    )


def _number(members: Mapping[str, object], name: str) -> float | None:
    value = members.get(name)
    return float(value) if isinstance(value, int | float) else None

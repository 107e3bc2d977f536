"""Canonical requests as TensorRT-LLM's gRPC service reads them."""

from enginehouse.adapters._token_engine import AskedTokens
from enginehouse.adapters._token_engine.checks import chosen, top_k_of
from enginehouse.v1 import inference_pb2
from enginehouse.v1.tensorrt_llm_engine_pb2 import (
    TensorRtLlmGenerateRequest,
    TensorRtLlmGuidedDecoding,
    TensorRtLlmOutputConfig,
    TensorRtLlmSamplingConfig,
    TensorRtLlmTokenizedInput,
)

SEED_MIN, SEED_MAX = 0, 2**63 - 1
# The service takes no notice of a guide that is empty, whatever its type.
_ANY_OBJECT = '{"type":"object"}'


def write_generate(request: inference_pb2.GenerateRequest, asked: AskedTokens) -> TensorRtLlmGenerateRequest:
    """A streamed generation. It always streams: a client that leaves frees the slot."""
    output = TensorRtLlmOutputConfig(exclude_input_from_output=True)
    if request.sampling.HasField("top_logprobs"):
        output.logprobs = request.sampling.top_logprobs
    return TensorRtLlmGenerateRequest(
        request_id=asked.request_id,
        tokenized=TensorRtLlmTokenizedInput(input_token_ids=asked.prompt),
        sampling_config=_sampling(request.sampling, asked),
        output_config=output,
        max_tokens=asked.output_tokens_max,
        streaming=True,
        guided_decoding=_guide(request.response_format),
        stop=request.sampling.stop,
    )


def _sampling(sampling: inference_pb2.Sampling, asked: AskedTokens) -> TensorRtLlmSamplingConfig:
    config = TensorRtLlmSamplingConfig(
        beam_width=1,
        num_return_sequences=max(1, sampling.choices),
        top_k=top_k_of(sampling, asked.sampling_defaults),
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        repetition_penalty=chosen(asked.sampling_defaults.repetition_penalty, 1.0),
    )
    if sampling.HasField("temperature"):
        config.temperature = sampling.temperature
    if sampling.HasField("seed"):
        config.seed = sampling.seed
    if sampling.HasField("presence_penalty"):
        config.presence_penalty = sampling.presence_penalty
    if sampling.HasField("frequency_penalty"):
        config.frequency_penalty = sampling.frequency_penalty
    return config


def _guide(response_format: inference_pb2.ResponseFormat) -> TensorRtLlmGuidedDecoding | None:
    if response_format.json_object:
        kind = TensorRtLlmGuidedDecoding.GUIDE_TYPE_JSON
        return TensorRtLlmGuidedDecoding(guide_type=kind, guide=_ANY_OBJECT)
    if response_format.HasField("json_schema"):
        kind = TensorRtLlmGuidedDecoding.GUIDE_TYPE_JSON_SCHEMA
        return TensorRtLlmGuidedDecoding(guide_type=kind, guide=response_format.json_schema.schema)
    return None

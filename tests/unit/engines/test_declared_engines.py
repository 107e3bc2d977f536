"""Every setting of an engine in the settings file reaches the engine's descriptor."""

from enginehouse.engines.options import EngineOption, given_options
from enginehouse.services.settings import model
from enginehouse.services.settings.resources import engine_settings


def test_every_option_can_be_declared() -> None:
    declared = model.Engine(
        kind="vllm",
        model="owner/name",
        program="venv/bin/vllm",
        served_names=["other"],
        tensor_parallel=2,
        pipeline_parallel=3,
        memory_fraction=0.5,
        quantization="fp8",
        lora_adapters={"law": "owner/law"},
        container=model.Container(image="image:1", runtime="podman", arguments=["--network", "isolated"]),
        model_revision="v1",
        model_sha256="0" * 64,
    )
    settings = engine_settings(declared)
    assert given_options(settings) == list(EngineOption)
    assert (settings.container.runtime, settings.lora_adapters[0].source) == ("podman", "owner/law")


def test_engine_that_declares_nothing_more_is_given_no_option() -> None:
    settings = engine_settings(model.Engine(kind="echo"))
    assert given_options(settings) == []
    assert not settings.HasField("container")

"""Settings that some kinds of engine have and others have not, and what to say to those who set the others."""

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum

from enginehouse.contract import RequestError
from enginehouse.v1 import admin_pb2

_SHARE_MAX = 1.0
_OPENAI_APIS = (admin_pb2.ENGINE_API_UNSPECIFIED, admin_pb2.ENGINE_API_OPENAI)
# The kinds of ours that have an API of their own, for messages.
API_ENGINES: Mapping[admin_pb2.EngineApi.ValueType, tuple[str, ...]] = {
    admin_pb2.ENGINE_API_NATIVE: ("tgi",),
    admin_pb2.ENGINE_API_GRPC: ("tensorrt-llm", "vllm"),
}


class EngineOption(StrEnum):
    """A setting that a kind has to know before it may be set. The value is its name in `EngineSettings`."""

    PROGRAM = "program"
    SERVED_NAMES = "served_names"
    TENSOR_PARALLEL = "tensor_parallel"
    PIPELINE_PARALLEL = "pipeline_parallel"
    MEMORY_FRACTION = "memory_fraction"
    QUANTIZATION = "quantization"
    LORA_ADAPTERS = "lora_adapters"
    CONTAINER = "container"
    MODEL_REVISION = "model_revision"
    MODEL_SHA256 = "model_sha256"


def given_options(settings: admin_pb2.EngineSettings) -> list[EngineOption]:
    """The options that are set to more than their default. One tensor rank, and one stage, are the default."""
    given: list[EngineOption] = []
    for option in EngineOption:
        if option is EngineOption.CONTAINER:
            is_given = bool(settings.container.image or settings.container.runtime or settings.container.arguments)
        elif option in (EngineOption.TENSOR_PARALLEL, EngineOption.PIPELINE_PARALLEL):
            is_given = getattr(settings, option.value) not in (0, 1)
        else:
            is_given = bool(getattr(settings, option.value))
        if is_given:
            given.append(option)
    return given


def api_name(api: admin_pb2.EngineApi.ValueType) -> str:
    """The API as settings files call it, for example "grpc"; its number where it has no name."""
    if api not in admin_pb2.EngineApi.values():
        return str(api)
    return admin_pb2.EngineApi.Name(api).removeprefix("ENGINE_API_").lower()


def check_api(
    settings: admin_pb2.EngineSettings,
    *,
    deployment: str,
    engine: str,
    known: Container[admin_pb2.EngineApi.ValueType],
) -> None:
    """Refuses an API that the kind does not have.

    Raises:
        RequestError: naming the API and the engines that have it.
    """
    api = settings.api
    if api in _OPENAI_APIS or api in known:
        return
    having = ", ".join(API_ENGINES.get(api, ())) or "none"
    raise RequestError(
        f"{deployment}: engine {engine} has no api {api_name(api)!r}; leave api out, or take an engine that has it: "
        f"{having}"
    )


def check_options_of_api(
    settings: admin_pb2.EngineSettings, *, deployment: str, without: Container[EngineOption]
) -> None:
    """Refuses options that mean nothing to requests in the API that the engine is asked in.

    Raises:
        RequestError: naming the option and the API.
    """
    for option in given_options(settings):
        if option in without:
            raise RequestError(
                f"{deployment}: {option.value} cannot be asked for through the api {api_name(settings.api)!r}; leave "
                "one of the two out"
            )


def check_options(
    settings: admin_pb2.EngineSettings, *, deployment: str, engine: str, known: Iterable[EngineOption]
) -> None:
    """Refuses options that the kind does not have, and values that no kind could have.

    Raises:
        RequestError: naming the option, its value and what there is.
    """
    known = frozenset(known)
    for option in given_options(settings):
        if settings.external_url:
            raise RequestError(
                f"{deployment}: {option.value} is set, but the engine at {settings.external_url} runs already and is "
                "only attached; leave it out"
            )
        if option not in known:
            names = ", ".join(sorted(one.value for one in known)) or "none"
            raise RequestError(
                f"{deployment}: engine {engine} has no {option.value}; leave it out, or take an engine that has it. "
                f"Of such settings {engine} has: {names}"
            )
    _check_values(settings, deployment)


def _check_values(settings: admin_pb2.EngineSettings, deployment: str) -> None:
    for name in ("tensor_parallel", "pipeline_parallel"):
        number: int = getattr(settings, name)
        if number < 0:
            raise RequestError(f"{deployment}: {name} is {number}; give a positive number, or 0 for 1")
    if not 0.0 <= settings.memory_fraction <= _SHARE_MAX:
        raise RequestError(
            f"{deployment}: memory_fraction is {settings.memory_fraction:g}; give a share above 0 and up to 1"
        )
    for text, name in ((settings.program, "program"), (settings.quantization, "quantization")):
        if text.startswith("-"):
            raise RequestError(f"{deployment}: {name} {text!r} would be read as an option; give it without the dash")
    for served in settings.served_names:
        if not served or served.startswith("-"):
            raise RequestError(f"{deployment}: served_names has {served!r}; give a name")
    names = [adapter.name for adapter in settings.lora_adapters]
    for adapter in settings.lora_adapters:
        if not adapter.name or adapter.name.startswith("-") or set("=,") & set(adapter.name) or not adapter.source:
            raise RequestError(
                f"{deployment}: lora_adapters has {adapter.name!r} from {adapter.source!r}; give each a name without "
                "'=' and ',', and a source"
            )
    if len(set(names)) < len(names):
        raise RequestError(f"{deployment}: two lora_adapters have one name; names are {', '.join(names)}")
    container = settings.container
    if (container.runtime or container.arguments) and not container.image:
        raise RequestError(f"{deployment}: container has no image; name one, or leave the container out")

"""The gRPC faces of vLLM and TensorRT-LLM, through the published protos."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from enginehouse.contract import RequestError
from enginehouse.engines.emulators import EmulatorOptions, Face, Fault, FaultKind, make_emulation, running
from tests.support.waiting import until_async

# Packages without types.
common_pb2: Any = import_module("smg_grpc_proto.generated.common_pb2")
trtllm_service_pb2: Any = import_module("smg_grpc_proto.generated.trtllm_service_pb2")
trtllm_service_pb2_grpc: Any = import_module("smg_grpc_proto.generated.trtllm_service_pb2_grpc")
vllm_engine_pb2: Any = import_module("smg_grpc_proto.generated.vllm_engine_pb2")
vllm_engine_pb2_grpc: Any = import_module("smg_grpc_proto.generated.vllm_engine_pb2_grpc")
health_pb2_grpc: Any = import_module("grpc_health.v1.health_pb2_grpc")

EOS, FIRST_BYTE = 2, 3
HELLO_IDS = [FIRST_BYTE + byte for byte in b"hello"]
KINDS = ("vllm", "tensorrt-llm")


class VllmCaller:
    """vllm.grpc.engine.VllmEngine."""

    pb: Any = vllm_engine_pb2
    service = "vllm.grpc.engine.VllmEngine"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = vllm_engine_pb2_grpc.VllmEngineStub(channel)

    def request(self, name: str = "r", **members: Any) -> Any:  # noqa: ANN401
        """A request that says "hello" back."""
        params = {"max_tokens": 16, **members}
        is_streaming = params.pop("streaming", True)
        return vllm_engine_pb2.GenerateRequest(
            request_id=name,
            tokenized={"input_ids": HELLO_IDS},
            sampling_params=params,
            stream=is_streaming,
        )

    def abort(self, name: str) -> Any:  # noqa: ANN401
        """The call that aborts a request."""
        return self.stub.Abort(vllm_engine_pb2.AbortRequest(request_ids=[name]))


class TensorRtLlmCaller:
    """trtllm.TrtllmService."""

    pb: Any = trtllm_service_pb2
    service = "trtllm.TrtllmService"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = trtllm_service_pb2_grpc.TrtllmServiceStub(channel)

    def request(self, name: str = "r", **members: Any) -> Any:  # noqa: ANN401
        """A request that says "hello" back."""
        sequences = members.pop("n", 1)
        return trtllm_service_pb2.GenerateRequest(
            request_id=name,
            tokenized={"input_token_ids": HELLO_IDS},
            sampling_config={"num_return_sequences": sequences},
            **{"max_tokens": 16, "streaming": True, **members},
        )

    def abort(self, name: str) -> Any:  # noqa: ANN401
        """The call that aborts a request."""
        return self.stub.Abort(trtllm_service_pb2.AbortRequest(request_id=name))


Grpc = VllmCaller | TensorRtLlmCaller
CALLERS: dict[str, type[Grpc]] = {"vllm": VllmCaller, "tensorrt-llm": TensorRtLlmCaller}


@asynccontextmanager
async def grpc_caller(kind: str, **options: Any) -> AsyncIterator[Grpc]:  # noqa: ANN401
    """An emulator's gRPC face and a caller of it."""
    emulation = make_emulation(kind, EmulatorOptions(face=Face.GRPC, **options))
    async with running(emulation) as address, grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def is_serving() -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest())
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        await until_async(is_serving, "the emulator serves")
        yield CALLERS[kind](channel)


async def generated(caller: Grpc, request: Any) -> list[Any]:  # noqa: ANN401
    """All messages of a Generate."""
    return [message async for message in caller.stub.Generate(request)]


async def test_vllm_streams_deltas_and_completes_with_the_last_one() -> None:
    async with grpc_caller("vllm") as caller:
        messages = await generated(caller, caller.request())
    chunks = [message.chunk for message in messages if message.HasField("chunk")]
    assert [list(chunk.token_ids) for chunk in chunks] == [[number] for number in (*HELLO_IDS, EOS)]
    assert {(chunk.prompt_tokens, chunk.completion_tokens) for chunk in chunks} == {(5, 1)}
    complete = messages[-1].complete
    assert list(complete.output_ids) == [EOS]
    assert complete.finish_reason == "stop"


async def test_vllm_answers_whole_where_no_stream_is_asked_for() -> None:
    async with grpc_caller("vllm") as caller:
        (message,) = await generated(caller, caller.request(streaming=False, max_tokens=3))
    assert list(message.complete.output_ids) == HELLO_IDS[:3]
    assert (message.complete.finish_reason, message.complete.completion_tokens) == ("length", 3)


async def test_vllm_takes_text_too() -> None:
    async with grpc_caller("vllm") as caller:
        request = vllm_engine_pb2.GenerateRequest(request_id="r", text="a b c")
        (message,) = await generated(caller, request)
    assert (message.complete.prompt_tokens, message.complete.completion_tokens) == (3, 4)


async def test_tensorrt_llm_streams_deltas_and_completes_with_all_tokens() -> None:
    async with grpc_caller("tensorrt-llm") as caller:
        messages = await generated(caller, caller.request())
    chunks = [message.chunk for message in messages if message.HasField("chunk")]
    assert [list(chunk.token_ids) for chunk in chunks] == [[number] for number in (*HELLO_IDS, EOS)]
    assert [chunk.completion_tokens for chunk in chunks] == [1, 2, 3, 4, 5, 6]
    complete = messages[-1].complete
    assert list(complete.output_token_ids) == [*HELLO_IDS, EOS]
    assert (complete.finish_reason, complete.prompt_tokens) == ("stop", 5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_string_ends_a_choice_and_is_named(kind: str) -> None:
    async with grpc_caller(kind) as caller:
        messages = await generated(caller, caller.request(stop=["ll"]))
    assert messages[-1].complete.matched_stop_str == "ll"
    assert messages[-1].complete.finish_reason.startswith("stop")


@pytest.mark.parametrize("kind", KINDS)
async def test_choices_come_side_by_side(kind: str) -> None:
    async with grpc_caller(kind) as caller:
        messages = await generated(caller, caller.request(n=2))
    completes = [message.complete for message in messages if message.HasField("complete")]
    assert len(completes) == 2
    member = "index" if kind == "vllm" else "sequence_index"
    assert [getattr(complete, member) for complete in completes] == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_limit_of_nothing_is_the_callers_fault(kind: str) -> None:
    async with grpc_caller(kind) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await generated(caller, caller.request(max_tokens=0))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (FaultKind.ERROR_FRAME, grpc.StatusCode.INTERNAL),
        (FaultKind.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (FaultKind.REFUSE, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_faults_are_statuses(kind: str, fault: FaultKind, code: grpc.StatusCode) -> None:
    async with grpc_caller(kind, faults=(Fault(kind=fault),)) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await generated(caller, caller.request())
        assert raised.value.code() is code
        assert await generated(caller, caller.request())


@pytest.mark.parametrize("kind", KINDS)
async def test_abort_breaks_a_request_and_frees_its_place(kind: str) -> None:
    async with grpc_caller(kind, places=1, faults=(Fault(kind=FaultKind.HANG, after_tokens=1),)) as caller:
        stuck = asyncio.create_task(generated(caller, caller.request("stuck")))
        await asyncio.wait({stuck}, timeout=0.05)
        aborted = False
        while not aborted:  # until it is at work
            await caller.abort("stuck")
            aborted = bool((await asyncio.wait({stuck}, timeout=0.05))[0])
        if kind == "vllm":  # ends as if nothing had happened, but for the reason
            assert (await stuck)[-1].complete.finish_reason == "abort"
        else:
            with pytest.raises(grpc.aio.AioRpcError):
                await stuck
        assert await generated(caller, caller.request("next"))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_tokenizer_comes_as_a_zip_with_its_digest(kind: str) -> None:
    async with grpc_caller(kind) as caller:
        chunks = [chunk async for chunk in caller.stub.GetTokenizer(common_pb2.GetTokenizerRequest())]
    data = b"".join(chunk.data for chunk in chunks)
    assert chunks[-1].sha256 == hashlib.sha256(data).hexdigest()
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        tokenizer = json.loads(bundle.read("tokenizer.json"))
    vocabulary = tokenizer["model"]["vocab"]
    assert [vocabulary[letter] for letter in "hello"] == HELLO_IDS


@pytest.mark.parametrize("kind", KINDS)
async def test_it_says_what_it_serves(kind: str) -> None:
    async with grpc_caller(kind, models=("some-model",), context_tokens_max=64) as caller:
        info = await caller.stub.GetModelInfo(caller.pb.GetModelInfoRequest())
        await caller.stub.GetServerInfo(caller.pb.GetServerInfoRequest())
        await caller.stub.HealthCheck(caller.pb.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.stub.Embed(caller.pb.EmbedRequest())
    served = info.served_model_name if kind == "vllm" else info.model_id
    assert served == "some-model"
    assert raised.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT)


async def test_vllm_reports_its_load() -> None:
    async with grpc_caller("vllm", places=3) as caller:
        loads = await caller.stub.GetLoads(vllm_engine_pb2.GetLoadsRequest())
    assert (loads.loads[0].num_running_reqs, loads.loads[0].max_running_requests) == (0, 3)


async def test_other_engines_have_no_grpc_face() -> None:
    with pytest.raises(RequestError, match="--grpc"):
        async with running(make_emulation("tgi", EmulatorOptions(face=Face.GRPC))):
            pass

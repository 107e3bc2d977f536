"""gRPC clients on the same port: the adapter lane natively, the admin API, health and reflection."""

import base64
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from enginehouse.contract import PolicyRefusal, Reason
from enginehouse.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from tests.integration.gateway.mesh import UNKNOWN, Mesh
from tests.integration.gateway.stub_router import Answer, adapter, denied

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = (("authorization", "Bearer sk-client"),)


async def generate(
    mesh: Mesh, prompt: str = "hi", compression: grpc.Compression = grpc.Compression.NoCompression
) -> list[inference_pb2.GenerateResponse]:
    stub = inference_pb2_grpc.InferenceServiceStub(mesh.channel)
    call = stub.Generate(inference_pb2.GenerateRequest(prompt=prompt), metadata=KEY, compression=compression)
    return [message async for message in call]


async def test_call_passes_the_check_with_its_raw_bytes_and_reaches_the_node(mesh: Mesh) -> None:
    mesh.answer(adapter(mesh.nodes[0].address))

    messages = await generate(mesh, "é")

    assert [message.WhichOneof("event") for message in messages] == ["delta", "finished"]
    (check,) = mesh.router.checks
    sent = inference_pb2.GenerateRequest(prompt="é").SerializeToString()
    assert check.path == "/check/enginehouse.v1.InferenceService/Generate"
    assert check.body == b"\0" + len(sent).to_bytes(4, "big") + sent
    assert (check.headers["content-type"], check.headers["te"]) == ("application/grpc", "trailers")
    assert check.headers["authorization"] == "Bearer sk-client"
    (call,) = mesh.nodes[0].calls
    assert call["x-enginehouse-internal-ticket"] == "ticket"
    assert "authorization" not in call


async def test_compressed_message_is_told_to_the_router(mesh: Mesh) -> None:
    mesh.answer(adapter(mesh.nodes[0].address))

    await generate(mesh, "hi" * 1000, compression=grpc.Compression.Gzip)

    (check,) = mesh.router.checks
    assert (check.headers["grpc-encoding"], check.body[0]) == ("gzip", 1)


async def test_node_that_is_gone_is_followed_by_the_next_of_the_list(mesh: Mesh) -> None:
    mesh.answer(adapter(mesh.dead, UNKNOWN, mesh.nodes[2].address))
    assert len(await generate(mesh, "x" * 1_000_000)) == 2
    assert len(mesh.nodes[2].calls) == 1


async def test_denial_is_an_error_with_its_reason_and_details(mesh: Mesh) -> None:
    refusal = PolicyRefusal("too much", Reason.BUDGET_EXHAUSTED, metadata={"limit": "limits/l"}, retry_after_s=3)
    details = base64.b64encode(refusal.to_status().SerializeToString()).decode().rstrip("=")
    for status in (402, 503):
        mesh.answer(
            denied(
                status, grpc_status=str(refusal.grpc_status), grpc_message="too much", grpc_status_details_bin=details
            )
        )
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await generate(mesh)

        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.value.details() == "too much"
        call: Any = error.value  # it has what from_call reads, whatever the published types say
        status_of_call = rpc_status.from_call(call)
        info = error_details_pb2.ErrorInfo()
        assert status_of_call.details[0].Unpack(info)
        assert (info.reason, info.metadata["limit"]) == ("BUDGET_EXHAUSTED", "limits/l")


@pytest.mark.parametrize(
    ("prompt_bytes", "answer", "code", "message"),
    [
        (10, adapter(UNKNOWN), grpc.StatusCode.UNAVAILABLE, "No replica"),
        (10, adapter(UNKNOWN, x_md_excluded="residency"), grpc.StatusCode.UNAVAILABLE, "kept out by: residency"),
        (10, Answer(200), grpc.StatusCode.UNAVAILABLE, "No replica"),
        (2_000_000, Answer(200), grpc.StatusCode.INVALID_ARGUMENT, "larger than 1048576 bytes"),
    ],
)
async def test_envoys_own_errors_have_our_codes(
    mesh: Mesh, prompt_bytes: int, answer: Answer, code: grpc.StatusCode, message: str
) -> None:
    mesh.answer(answer)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await generate(mesh, "x" * prompt_bytes)
    assert error.value.code() is code
    assert message in (error.value.details() or "")


async def test_unknown_service_is_unimplemented_and_not_checked(mesh: Mesh) -> None:
    for path in ("/somebody.else.Service/Call", "/enginehouse.v1.LedgerService/Enroll"):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await mesh.channel.unary_unary(path, bytes, bytes)(b"")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert mesh.router.checks == []


async def test_admin_api_goes_to_control_with_the_callers_token_and_without_a_check(mesh: Mesh) -> None:
    stub = admin_pb2_grpc.AdminServiceStub(mesh.channel)

    answer = await stub.ListTenants(admin_pb2.ListTenantsRequest(), metadata=KEY)

    assert [tenant.name for tenant in answer.tenants] == ["organizations/o/tenants/t"]
    assert mesh.control.tokens[-1] == "Bearer sk-client"
    assert mesh.router.checks == []


async def test_health_is_the_routers_and_not_checked(mesh: Mesh) -> None:
    check = mesh.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    answer = await check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert mesh.router.checks == []


async def test_usage_of_the_nodes_trailers_is_in_both_logs(mesh: Mesh) -> None:
    mesh.answer(adapter(mesh.nodes[0].address))
    await generate(mesh)
    request_id = mesh.router.checks[0].headers["x-request-id"]

    line = await mesh.line_of(request_id)
    entry = await mesh.entry_of(request_id)

    assert line["usage_trailers"] == {"input": "5", "cached_input": "2", "output": "7"}
    assert (line["replica"], line["grpc_status"]) == ("replica-1", 0)
    assert entry.response.response_trailers["x-usage-output"] == "7"
    assert entry.response.response_trailers["x-enginehouse-replica"] == "replica-1"
    assert entry.response.response_trailers["grpc-status"] == "0"

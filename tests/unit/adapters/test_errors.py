import base64
import json
from urllib.parse import unquote

import pytest
from google.rpc import status_pb2

from enginehouse.adapters import dialect_of_path, encode_error, encode_stream_error
from enginehouse.contract import (
    DependencyError,
    EngineError,
    EnginehouseError,
    PolicyRefusal,
    Reason,
    RequestError,
    error_from_status,
)
from enginehouse.v1 import common_pb2

OPENAI, ANTHROPIC, GRPC = common_pb2.DIALECT_OPENAI, common_pb2.DIALECT_ANTHROPIC, common_pb2.DIALECT_GRPC
BUDGET = PolicyRefusal(
    "0.10 USD are left: 100 % spent é\n",
    Reason.BUDGET_EXHAUSTED,
    metadata={"rule": "budget", "limit": "acme/day"},
    retry_after_s=1.2,
)


def test_openai_gets_its_form_and_ours_beside_it() -> None:
    answer = encode_error(OPENAI, BUDGET, "r1")
    error = json.loads(answer.body)["error"]
    assert (answer.status, answer.content_type) == (402, "application/json")
    assert dict(answer.headers)["retry-after"] == "2"
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "budget_exhausted", None)
    assert error["message"] == BUDGET.message
    assert error["enginehouse"] == {
        "reason": "BUDGET_EXHAUSTED",
        "rule": "budget",
        "metadata": {"rule": "budget", "limit": "acme/day"},
        "request_id": "r1",
    }


def test_openai_param_is_the_member_that_did_not_fit() -> None:
    error = RequestError("n is 0", metadata={"field": "n"})
    assert json.loads(encode_error(OPENAI, error).body)["error"]["param"] == "n"


def test_anthropic_gets_its_form() -> None:
    answer = encode_error(ANTHROPIC, BUDGET, "r1")
    body = json.loads(answer.body)
    assert answer.status == 402
    assert body["type"] == "error"
    assert body["error"]["type"] == "billing_error"
    assert body["request_id"] == dict(answer.headers)["request-id"] == "r1"


@pytest.mark.parametrize(
    ("error", "openai_type", "anthropic_type"),
    [
        (RequestError("x"), "invalid_request_error", "invalid_request_error"),
        (RequestError("x", Reason.INVALID_KEY), "authentication_error", "authentication_error"),
        (RequestError("x", Reason.PERMISSION_DENIED), "permission_error", "permission_error"),
        (RequestError("x", Reason.MODEL_NOT_FOUND), "not_found_error", "not_found_error"),
        (RequestError("x", Reason.REQUEST_TOO_LARGE), "invalid_request_error", "request_too_large"),
        (PolicyRefusal("x", Reason.RATE_LIMITED), "rate_limit_error", "rate_limit_error"),
        (PolicyRefusal("x", Reason.RESIDENCY_UNSATISFIABLE), "permission_error", "permission_error"),
        (EngineError("x"), "server_error", "api_error"),
        (EngineError("x", Reason.ENGINE_TIMEOUT), "server_error", "timeout_error"),
        (DependencyError("x"), "server_error", "overloaded_error"),
    ],
)
def test_each_status_has_its_word_in_each_dialect(
    error: EnginehouseError, openai_type: str, anthropic_type: str
) -> None:
    assert json.loads(encode_error(OPENAI, error).body)["error"]["type"] == openai_type
    assert json.loads(encode_error(ANTHROPIC, error).body)["error"]["type"] == anthropic_type


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_can_be_said_in_every_dialect(reason: Reason) -> None:
    error = EnginehouseError("what was wrong", reason)
    for dialect in (OPENAI, ANTHROPIC):
        assert json.loads(encode_error(dialect, error).body)["error"]["message"] == "what was wrong"
    assert dict(encode_error(GRPC, error).headers)["grpc-status"] == str(error.grpc_status)


def test_grpc_gets_a_status_in_headers_that_survives_the_way() -> None:
    answer = encode_error(GRPC, BUDGET)
    headers = dict(answer.headers)
    assert answer.body == b""
    assert headers["content-type"] == "application/grpc"
    assert headers["grpc-status"] == "8"
    assert unquote(headers["grpc-message"]) == BUDGET.message
    assert headers["grpc-message"].isascii()
    assert "\n" not in headers["grpc-message"]
    assert "100 %25 spent" in headers["grpc-message"]
    details = headers["grpc-status-details-bin"]
    packed = base64.b64decode(details + "=" * (-len(details) % 4))
    error = error_from_status(status_pb2.Status.FromString(packed))
    assert (error.reason, error.metadata, error.retry_after_s) == (BUDGET.reason, BUDGET.metadata, 2.0)


def test_a_broken_openai_stream_ends_in_an_error_and_nothing_else() -> None:
    event = encode_stream_error(OPENAI, EngineError("it died"))
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert b"[DONE]" not in event
    assert json.loads(event.removeprefix(b"data: "))["error"]["message"] == "it died"


def test_a_broken_anthropic_stream_ends_in_an_error_event() -> None:
    event = encode_stream_error(ANTHROPIC, EngineError("it\ndied"))
    name, data = event.removesuffix(b"\n\n").split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"] | {"enginehouse": None} == {
        "type": "api_error",
        "message": "it\ndied",
        "enginehouse": None,
    }


def test_a_broken_grpc_stream_ends_with_its_status_alone() -> None:
    assert encode_stream_error(dialect_of_path("/enginehouse.v1.InferenceService/Generate"), EngineError("x")) == b""

"""What a node is asked to count, and what is not countable."""

import json

import pytest

from enginehouse.adapters import dialects
from enginehouse.adapters.grpc import frame
from enginehouse.services.router.prompt import Prompt
from enginehouse.v1 import common_pb2, inference_pb2

MESSAGES = [{"role": "user", "content": "How many?"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def openai_prompt(**members: object) -> Prompt:
    body = json.dumps({"model": "m", "messages": MESSAGES, **members}).encode()
    return Prompt(common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_CHAT, b"", body)


def anthropic_prompt(**members: object) -> Prompt:
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": MESSAGES, **members}).encode()
    return Prompt(common_pb2.DIALECT_ANTHROPIC, common_pb2.OPERATION_CHAT, b"", body)


def grpc_prompt() -> Prompt:
    request = inference_pb2.GenerateRequest(model="m")
    request.conversation.messages.add(role=inference_pb2.ROLE_USER).parts.add(text="How many?")
    return Prompt(
        common_pb2.DIALECT_GRPC, common_pb2.OPERATION_CHAT, b"", frame(request.SerializeToString()), {"te": "trailers"}
    )


@pytest.mark.parametrize("prompt", [openai_prompt(), anthropic_prompt(), grpc_prompt()])
def test_a_plain_conversation_is_countable_in_every_dialect(prompt: Prompt) -> None:
    question = prompt.to_count()
    assert question is not None
    assert question.model == "m"
    assert [part.text for message in question.conversation.messages for part in message.parts] == ["How many?"]


def test_a_completion_of_one_text_is_countable() -> None:
    body = json.dumps({"model": "m", "prompt": "Once"}).encode()
    question = Prompt(common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_COMPLETION, b"", body).to_count()
    assert question is not None
    assert question.prompt == "Once"


def test_sampling_and_streaming_change_no_count() -> None:
    assert openai_prompt(temperature=0, max_tokens=5, stream=True).to_count() == openai_prompt().to_count()


@pytest.mark.parametrize(
    "prompt",
    [
        openai_prompt(response_format=SCHEMA),
        openai_prompt(reasoning_effort="high"),
        openai_prompt(tool_choice="required", tools=[{"type": "function", "function": {"name": "f"}}]),
        openai_prompt(messages=[{"role": "user", "content": [IMAGE]}]),
        openai_prompt(chat_template_kwargs={"enable_thinking": True}),
        anthropic_prompt(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2000),
        Prompt(common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_EMBEDDING, b"", b'{"model":"m","input":"a"}'),
        Prompt(),
    ],
)
def test_what_may_change_the_prompt_in_a_way_of_the_templates_own_is_not_countable(prompt: Prompt) -> None:
    assert prompt.to_count() is None


def test_a_prompt_never_shows_its_text() -> None:
    secret = Prompt(common_pb2.DIALECT_OPENAI, common_pb2.OPERATION_CHAT, b"secret", b"secret", {"a": "secret"})
    assert "secret" not in repr(secret)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "system", "content": "secret text"}, *MESSAGES]}),
        ("/v1/messages", {"model": "m", "max_tokens": 1, "system": "secret text", "messages": MESSAGES}),
    ],
)
def test_the_beginning_that_is_hashed_is_the_text_that_the_model_reads_first(path: str, body: object) -> None:
    inspect = dialects.find_endpoint("POST", path).inspect
    assert inspect is not None
    inspection = inspect(json.dumps(body).encode(), {})
    assert inspection.prompt_beginning.startswith(b"secret text")
    assert b"secret" not in repr(inspection).encode()


def test_a_beginning_is_no_longer_than_what_is_hashed() -> None:
    inspect = dialects.find_endpoint("POST", "/v1/chat/completions").inspect
    assert inspect is not None
    body = {"model": "m", "messages": [{"role": "user", "content": "\u00e9" * 9000}, *MESSAGES]}
    assert len(inspect(json.dumps(body).encode(), {}).prompt_beginning) == 8192

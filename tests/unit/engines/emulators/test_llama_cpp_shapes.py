"""llama.cpp's answers beside those that the real server sent: the same members, of the same types."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from enginehouse.engines.emulators import EmulatorOptions, make_emulation, running

RECORDINGS = Path(__file__).parents[3] / "integration" / "adapters" / "recordings" / "llama_cpp"
USER = {"messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 4}
PROMPT = {"prompt": "Hi there", "max_tokens": 2}


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    """The emulator's address."""
    emulation = make_emulation("llama-cpp", EmulatorOptions(context_tokens_max=64))
    async with running(emulation) as address:
        yield f"http://{address}"


def form(value: Any) -> Any:  # noqa: ANN401
    """Member names and types, without the values. Lists are as their first item; all numbers are one type."""
    if isinstance(value, dict):
        return {name: form(member) for name, member in value.items()}
    if isinstance(value, list):
        return [form(item) for item in value[:1]]
    return "number" if isinstance(value, int | float) else type(value).__name__


def frames(text: str) -> list[Any]:
    """The data of a stream; [DONE] as it is."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


async def post(url: str, body: dict[str, object]) -> str:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        return await answer.text()


@pytest.mark.parametrize(
    ("recording", "path", "body"),
    [
        ("chat.json", "/v1/chat/completions", USER),
        ("completion_logprobs.json", "/v1/completions", {**PROMPT, "logprobs": 2}),
        ("context_exceeded.json", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a " * 99}]}),
        ("embeddings_refused.json", "/v1/embeddings", {"input": "a"}),
        ("tokenize.json", "/tokenize", {"content": "a b"}),
        ("apply_template.json", "/apply-template", USER),
    ],
)
async def test_whole_answers_have_the_members_of_the_recording(
    url: str, recording: str, path: str, body: dict[str, object]
) -> None:
    recorded = json.loads((RECORDINGS / recording).read_text())
    assert form(json.loads(await post(url + path, body))) == form(recorded)


@pytest.mark.parametrize(
    ("recording", "path", "body"),
    [
        ("chat_stop.sse", "/v1/chat/completions", {**USER, "stream_options": {"include_usage": True}}),
        (
            "chat_logprobs.sse",
            "/v1/chat/completions",
            {**USER, "logprobs": True, "top_logprobs": 2, "stream_options": {"include_usage": True}},
        ),
        (
            "chat.sse",
            "/v1/chat/completions",
            {**USER, "timings_per_token": True, "stream_options": {"include_usage": True}},
        ),
        ("completion.sse", "/v1/completions", PROMPT),
    ],
)
async def test_streams_have_the_frames_of_the_recording(
    url: str, recording: str, path: str, body: dict[str, object]
) -> None:
    recorded = [form(frame) for frame in frames((RECORDINGS / recording).read_text())]
    said = [form(frame) for frame in frames(await post(url + path, {**body, "stream": True}))]
    assert [frame for index, frame in enumerate(recorded) if frame not in recorded[:index]] == [
        frame for index, frame in enumerate(said) if frame not in said[:index]
    ]

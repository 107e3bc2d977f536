"""TGI's own API, as its published OpenAPI document has it, and as its own client reads it."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import pytest_asyncio

from enginehouse.engines.emulators import EmulatorOptions, make_emulation, running
from tests.conformance.emulators.caller import HELLO, LONG, Caller, chat

# A package without types.
text_generation: Any = import_module("text_generation")
errors: Any = import_module("text_generation.errors")
OPENAPI: dict[str, Any] = json.loads((Path(__file__).parent / "tgi-openapi.json").read_text())
OLD_PYDANTIC = pytest.mark.filterwarnings("ignore:The `dict` method is deprecated:DeprecationWarning")
DETAILED = {"details": True, "decoder_input_details": True, "top_n_tokens": 2, "seed": 7}


def as_json_schema(name: str) -> dict[str, Any]:
    """A schema of the document as JSON Schema, in which OpenAPI 3.0's `nullable` is a type."""
    schemas = copy.deepcopy(OPENAPI["components"]["schemas"])

    def translated(node: Any) -> Any:  # noqa: ANN401
        if isinstance(node, list):
            return [translated(item) for item in node]
        if not isinstance(node, dict):
            return node
        node = {key: translated(value) for key, value in node.items() if key not in ("default", "example")}
        for word in ("exclusiveMinimum", "exclusiveMaximum"):
            node.pop(word, None)  # of parameters alone; their form is that of OpenAPI 2
        if node.pop("nullable", False):
            return {"anyOf": [node, {"type": "null"}]}
        return node

    return {"$ref": f"#/components/schemas/{name}", "components": {"schemas": translated(schemas)}}


def assert_is(name: str, value: object) -> None:
    """The value is of a schema of the document, and names nothing that the document does not know."""
    jsonschema.validate(value, as_json_schema(name))


@pytest_asyncio.fixture
async def tgi(session: aiohttp.ClientSession) -> AsyncIterator[Caller]:
    """The emulator as it is by default."""
    async with running(make_emulation("tgi", EmulatorOptions(controls=True))) as address:
        yield Caller(address, session)


async def test_every_path_of_the_document_is_served(tgi: Caller) -> None:
    for path, methods in OPENAPI["paths"].items():
        for method in methods:
            status, _ = await (tgi.get(path) if method == "get" else tgi.post(path, {"unknown": True}))
            assert status not in (404, 405), (method, path)


@pytest.mark.parametrize("parameters", [{}, DETAILED, {"details": True, "best_of": 2, "do_sample": True}])
async def test_generate_answers_as_the_document_says(tgi: Caller, parameters: dict[str, object]) -> None:
    body = {"inputs": HELLO, "parameters": parameters}
    status, answer = await tgi.post("/generate", body)
    assert status == 200
    assert_is("GenerateResponse", answer)
    assert answer["generated_text"] == HELLO
    status, answers = await tgi.post("/", body)
    assert status == 200
    assert answers == [answer]
    status, answer = await tgi.post("/invocations", body)
    assert status == 200
    assert answers == (answer if isinstance(answer, list) else [answer])


async def test_details_hold_every_token_and_the_prompt(tgi: Caller) -> None:
    _, answer = await tgi.post("/generate", {"inputs": HELLO, "parameters": DETAILED})
    details = answer["details"]
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == len(details["tokens"]) == 4
    assert [token["text"] for token in details["prefill"]] == ["Hello", " big", " world"]
    assert details["tokens"][-1]["special"]
    assert details["seed"] == 7


async def test_generate_stream_answers_as_the_document_says(tgi: Caller) -> None:
    status, heard = await tgi.stream("/generate_stream", {"inputs": HELLO, "parameters": {"details": True}})
    assert status == 200
    assert not heard.is_done
    for frame in heard.frames:
        assert_is("StreamResponse", frame)
    assert [frame["index"] for frame in heard.frames] == [1, 2, 3, 4]
    assert [frame["generated_text"] for frame in heard.frames] == [None, None, None, HELLO]
    last = heard.frames[-1]["details"]
    assert (last["finish_reason"], last["generated_tokens"], last["input_length"]) == ("eos_token", 4, 3)


async def test_stop_sequences_stay_in_the_text(tgi: Caller) -> None:
    _, answer = await tgi.post("/generate", {"inputs": LONG, "parameters": {"stop": ["w3"], "details": True}})
    assert answer["generated_text"] == "w0 w1 w2 w3"
    assert answer["details"]["finish_reason"] == "stop_sequence"


async def test_the_openai_forms_answer_as_the_document_says(tgi: Caller) -> None:
    _, answer = await tgi.post("/v1/chat/completions", chat(HELLO, logprobs=True, top_logprobs=1))
    assert_is("ChatCompletion", answer)
    _, heard = await tgi.stream(
        "/v1/chat/completions", chat(HELLO, stream=True, logprobs=True, stream_options={"include_usage": True})
    )
    for frame in heard.frames:
        assert_is("ChatCompletionChunk", frame)
    _, answer = await tgi.post("/v1/completions", {"prompt": [HELLO, LONG], "max_tokens": 2})
    assert_is("CompletionFinal", answer)
    assert len(answer["choices"]) == 2
    _, heard = await tgi.stream("/v1/completions", {"prompt": HELLO, "stream": True})
    for frame in heard.frames[:-1]:
        assert_is("Chunk", frame)
    assert_is("CompletionFinal", heard.frames[-1])
    assert heard.finish_reasons == ["eos_token"]


async def test_info_models_and_tokens_answer_as_the_document_says(tgi: Caller) -> None:
    assert_is("Info", json.loads((await tgi.get("/info"))[1]))
    # The document has one ModelInfo; the source answers a list of them.
    assert_is("ModelInfo", json.loads((await tgi.get("/v1/models"))[1])["data"][0])
    _, tokens = await tgi.post("/tokenize", {"inputs": HELLO})
    assert_is("TokenizeResponse", tokens)
    assert [HELLO[token["start"] : token["stop"]] for token in tokens] == ["Hello", " big", " world"]
    _, answer = await tgi.post("/chat_tokenize", chat(HELLO))
    assert_is("ChatTokenizeResponse", answer)


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"max_new_tokens": 0},
        {"max_new_tokens": 1_000_000},
        {"stop": ["a"] * 5},
        {"best_of": 2},
        {"truncate": 0},
        {"top_n_tokens": 6},
        {"frequency_penalty": 3},
    ],
)
async def test_what_validation_refuses_is_422_or_an_event(tgi: Caller, parameters: dict[str, object]) -> None:
    body = {"inputs": HELLO, "parameters": parameters}
    status, answer = await tgi.post("/generate", body)
    assert status == 422
    assert_is("ErrorResponse", answer)
    assert answer["error_type"] == "validation"
    status, heard = await tgi.stream("/generate_stream", body)
    assert status == 200
    (frame,) = heard.frames
    assert_is("ErrorResponse", frame)


async def test_whole_answers_carry_the_headers_of_the_router(tgi: Caller) -> None:
    async with tgi.raw_post("/generate", json.dumps({"inputs": HELLO}).encode()) as answer:
        assert answer.headers["x-prompt-tokens"] == "3"
        assert answer.headers["x-generated-tokens"] == "4"
        times = ("x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")
        assert all(answer.headers[name].isdecimal() for name in times)


async def test_a_key_guards_generation_alone(session: aiohttp.ClientSession) -> None:
    async with running(make_emulation("tgi", EmulatorOptions(api_key="k"))) as address:
        caller = Caller(address, session)
        assert (await caller.get("/health"))[0] == 200
        assert (await caller.get("/info"))[0] == 200
        status, body = await caller.post("/generate", {"inputs": HELLO})
        assert (status, body) == (401, "")
        headers = {"Authorization": "Bearer k"}
        async with session.post(f"http://{address}/generate", json={"inputs": HELLO}, headers=headers) as answer:
            assert answer.status == 200


@OLD_PYDANTIC
async def test_its_own_client_reads_answers_and_streams(tgi: Caller) -> None:
    client = text_generation.AsyncClient(f"http://{tgi.address}")
    answer = await client.generate(HELLO, max_new_tokens=10, decoder_input_details=True, top_n_tokens=1)
    assert answer.generated_text == HELLO
    assert answer.details.finish_reason.value == "eos_token"
    heard = [part async for part in client.generate_stream(HELLO, max_new_tokens=2)]
    assert [part.token.text for part in heard] == ["Hello", " big"]
    assert heard[-1].details is not None
    assert heard[-1].details.finish_reason.value == "length"


@OLD_PYDANTIC
async def test_its_own_blocking_client_chats(tgi: Caller) -> None:
    client = text_generation.Client(f"http://{tgi.address}")
    answer = await asyncio.to_thread(client.chat, [{"role": "user", "content": HELLO}], max_tokens=10)
    assert answer.choices[0].message.content == HELLO
    assert answer.usage["completion_tokens"] == 4


@OLD_PYDANTIC
async def test_its_own_client_raises_what_went_wrong(tgi: Caller) -> None:
    client = text_generation.AsyncClient(f"http://{tgi.address}")
    with pytest.raises(errors.ValidationError, match="max_new_tokens"):
        await client.generate(HELLO, max_new_tokens=100_000)
    with pytest.raises(errors.ValidationError, match="max_new_tokens"):
        _ = [part async for part in client.generate_stream(HELLO, max_new_tokens=100_000)]
    await tgi.plan("unavailable")
    with pytest.raises(errors.OverloadedError):
        await client.generate(HELLO)
    await tgi.plan("error_frame", after_tokens=1)
    with pytest.raises(errors.GenerationError):
        _ = [part async for part in client.generate_stream(HELLO)]


async def test_metrics_have_the_published_names(tgi: Caller) -> None:
    await tgi.post("/generate", {"inputs": HELLO})
    _, page = await tgi.get("/metrics")
    for name in (
        "tgi_queue_size",
        "tgi_batch_current_size",
        "tgi_batch_current_max_tokens",
        "tgi_request_count",
        "tgi_request_success",
        "tgi_request_generated_tokens_sum",
        "tgi_request_mean_time_per_token_duration_bucket",
    ):
        assert name in page
    assert await tgi.metric("/metrics", "tgi_request_generated_tokens_sum") == 4

"""Every engine through its own adapter: the same questions, and the same canonical answers."""

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from enginehouse.adapters.collect import Collector
from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.integration.adapters.spoken import (
    HELLO,
    LONG,
    MODEL,
    SCHEMA,
    SERVED,
    SPOKEN,
    WISHES,
    Conversing,
    chat,
    conversing,
    prompt,
    wishes,
)

ENGINE, NONE = common_pb2.USAGE_METHOD_ENGINE, common_pb2.USAGE_METHOD_NONE
STOP, LENGTH = inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH
EVERY = sorted(SPOKEN)


@pytest.fixture(params=EVERY)
async def engine(request: pytest.FixtureRequest, session: aiohttp.ClientSession) -> AsyncIterator[Conversing]:
    async with conversing(request.param, session) as made:
        yield made


async def fails(
    engine: Conversing, request: inference_pb2.GenerateRequest, *, tokens_max: int = 64
) -> tuple[EnginehouseError, common_pb2.Usage]:
    """The error of a generation, and what it used. It must not have finished before."""
    steps: list[inference_pb2.GenerateResponse] = []
    async with engine.generate(request, tokens_max=tokens_max) as generation:
        with pytest.raises(EnginehouseError) as caught:
            steps.extend([step async for step in generation])
    assert not any(step.HasField("finished") or step.HasField("choice_finished") for step in steps)
    return caught.value, generation.usage


async def test_a_prompt_is_gone_on_from_and_counted_by_the_engine(engine: Conversing) -> None:
    answer = await engine.answer(prompt())
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.stop_sequence) == (HELLO, STOP, "")
    assert answer.usage == common_pb2.Usage(input_tokens=3, output_tokens=4, method=ENGINE)


async def test_a_chat_is_answered_and_counted_by_the_engine(engine: Conversing) -> None:
    answer = await engine.answer(chat())
    assert HELLO in answer.choices[0].text
    assert (answer.choices[0].text == HELLO) is not engine.spoken.templates
    assert answer.usage.method == ENGINE
    assert answer.usage.input_tokens > 3
    assert answer.usage.output_tokens >= 4


async def test_an_answer_comes_in_pieces_that_say_what_they_belong_to(engine: Conversing) -> None:
    async with engine.generate(prompt()) as generation:
        steps = [step async for step in generation]
    deltas = [step.delta.text for step in steps if step.HasField("delta")]
    assert len(deltas) > 1
    assert "".join(deltas) == HELLO
    assert [step.WhichOneof("event") for step in steps[-2:]] == ["choice_finished", "finished"]
    assert {(step.id, step.model) for step in steps} == {("g-1", MODEL)}


async def test_the_bound_of_the_decision_is_enforced(engine: Conversing) -> None:
    answer = await engine.answer(prompt(LONG), tokens_max=3)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("w0 w1 w2", LENGTH)
    assert answer.usage.output_tokens == 3


async def test_a_stop_sequence_is_no_part_of_the_answer(engine: Conversing) -> None:
    answer = await engine.answer(prompt(stop=["wor"]))
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Hello big ", STOP)
    assert choice.stop_sequence == ("wor" if engine.spoken.names_stop else "")


async def test_several_choices_are_told_apart_and_counted_together(engine: Conversing) -> None:
    if engine.spoken.kind == "llama-cpp":
        return  # it counts each choice by itself, so routing offers it for one alone; see test_generation
    if "more than one choice" in engine.spoken.refuses:
        with pytest.raises(RequestError, match=f"engine {engine.spoken.name}"):
            engine.generate(prompt(choices=2))
        return
    answer = await engine.answer(chat(choices=2))
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, HELLO), (1, HELLO)]
    assert answer.usage.output_tokens == 8
    assert answer.usage.method == ENGINE


@pytest.mark.parametrize("name", [name for name in EVERY if SPOKEN[name].tells_logprobs])
async def test_log_probabilities_come_with_their_tokens(name: str, session: aiohttp.ClientSession) -> None:
    async with conversing(name, session) as engine:
        answer = await engine.answer(chat(top_logprobs=1))
    logprobs = answer.choices[0].logprobs
    told = "".join(item.token for item in logprobs if not item.token.startswith("</s>"))
    assert told == answer.choices[0].text
    assert all(item.logprob < 0 for item in logprobs)
    assert any(item.top for item in logprobs)


async def test_an_answer_follows_a_schema_or_the_wish_is_refused(engine: Conversing) -> None:
    request = chat()
    WISHES["response_format"](request)
    if "response_format" in engine.spoken.refuses:
        with pytest.raises(RequestError, match=f"response_format is not supported: the engine {engine.spoken.name}"):
            engine.generate(request)
        return
    answer = await engine.answer(request)
    assert json.loads(answer.choices[0].text) == {"why": "", "answer": 7}
    assert list(json.loads(answer.choices[0].text)) == list(json.loads(SCHEMA)["properties"])


async def test_sampling_at_its_bounds_means_the_same_everywhere(engine: Conversing) -> None:
    answer = await engine.answer(prompt(temperature=0.0, top_p=1.0, top_k=0, seed=1))
    assert answer.choices[0].text == HELLO


@pytest.mark.parametrize(
    ("name", "wish", "is_refused"), [(name, *item) for name in EVERY for item in wishes(name).items()]
)
async def test_what_an_engine_cannot_do_is_refused_naming_the_field_and_the_engine(
    name: str, wish: str, is_refused: bool, session: aiohttp.ClientSession
) -> None:
    async with conversing(name, session) as engine:
        request = chat()
        WISHES[wish](request)
        if not is_refused:
            await engine.generate(request).aclose()
            return
        with pytest.raises(RequestError) as caught:
            engine.generate(request)
        assert caught.value.reason is Reason.UNSUPPORTED_FIELD
        assert caught.value.metadata["field"] == wish
        assert engine.spoken.name in caught.value.message
        assert (await engine.caller.state())["requests"] == 0


async def test_an_engine_too_busy_says_so_before_anything_is_used(engine: Conversing) -> None:
    await engine.caller.plan("unavailable")
    error, usage = await fails(engine, prompt())
    assert error.reason is engine.spoken.overloaded
    assert usage.method == NONE


async def test_a_connection_that_is_reset_is_the_engines_failure(engine: Conversing) -> None:
    await engine.caller.plan("refuse")
    error, usage = await fails(engine, prompt())
    assert error.reason is Reason.ENGINE_FAILED
    assert usage.method == NONE


@pytest.mark.parametrize("fault", ["error_frame", "cut", "garbage"])
async def test_a_stream_that_breaks_is_an_error_with_what_was_used(engine: Conversing, fault: str) -> None:
    await engine.caller.plan(fault, after_tokens=2)
    error, usage = await fails(engine, chat(LONG))
    assert isinstance(error, EngineError)
    assert error.reason is Reason.ENGINE_FAILED
    assert usage.method == engine.spoken.cut_usage
    if usage.method != common_pb2.USAGE_METHOD_UPPER_BOUND:
        assert usage.input_tokens > 200
        assert usage.output_tokens == 2


async def test_a_client_that_leaves_frees_the_slot_and_pays_for_what_came(engine: Conversing) -> None:
    await engine.caller.plan("hang", after_tokens=1)
    generation = engine.generate(chat(LONG))
    assert (await anext(generation)).delta.text
    await engine.caller.until_state(running=1)
    await generation.aclose()
    await engine.caller.until_state(running=0)
    assert generation.usage.method == engine.spoken.cut_usage
    if generation.usage.method != common_pb2.USAGE_METHOD_UPPER_BOUND:
        assert generation.usage.input_tokens > 200
        assert generation.usage.output_tokens == 1


@pytest.mark.parametrize("name", EVERY)
async def test_a_prompt_that_does_not_fit_is_the_callers_to_shorten(name: str, session: aiohttp.ClientSession) -> None:
    async with conversing(name, session, context_tokens_max=16) as engine:
        error, usage = await fails(engine, prompt(LONG), tokens_max=8)
    assert error.reason is Reason.CONTEXT_TOO_LONG
    assert usage.method == NONE


@pytest.mark.parametrize("asked", ["chat", "prompt"])
async def test_tokens_are_counted_by_the_engine_or_the_wish_is_refused(engine: Conversing, asked: str) -> None:
    request = inference_pb2.CountTokensRequest(model=MODEL)
    if asked == "chat":
        request.conversation.CopyFrom(chat().conversation)
    else:
        request.prompt = HELLO
    if asked not in engine.spoken.counts:
        with pytest.raises(RequestError, match=f"engine {engine.spoken.name}"):
            await engine.client.count_tokens(request, served_model=SERVED)
        return
    counted = await engine.client.count_tokens(request, served_model=SERVED)
    assert counted.model == MODEL
    assert counted.input_tokens >= 3


@pytest.mark.parametrize("name", ["tgi", "tgi-native", "mlx", "tensorrt-llm"])
async def test_engines_that_only_generate_say_so(name: str, session: aiohttp.ClientSession) -> None:
    async with conversing(name, session) as engine:
        with pytest.raises(RequestError, match=f"the engine {engine.spoken.name} cannot embed") as caught:
            await engine.client.embed(inference_pb2.EmbedRequest(model=MODEL, input=["a"]), served_model=SERVED)
        assert caught.value.reason is Reason.CAPABILITY_NOT_FOUND
        ranking = inference_pb2.RerankRequest(model=MODEL, query="q", documents=["d"])
        with pytest.raises(RequestError, match=f"the engine {engine.spoken.name} cannot rank"):
            await engine.client.rerank(ranking, served_model=SERVED)


@pytest.mark.parametrize("name", ["vllm", "tgi", "tgi-native", "sglang"])
async def test_a_key_that_we_do_not_hold_is_no_fault_of_the_client(name: str, session: aiohttp.ClientSession) -> None:
    async with conversing(name, session, api_key="secret") as engine:
        error, usage = await fails(engine, prompt())
    assert error.reason is Reason.ENGINE_FAILED  # TGI's 401 has no body
    assert usage.method == NONE


async def test_token_ids_come_from_the_engine_that_can_tell_them(session: aiohttp.ClientSession) -> None:
    async with conversing("tgi-native", session) as engine:
        request = prompt()
        request.return_token_ids = True
        collector = Collector()
        async with engine.generate(request) as generation:
            async for step in generation:
                collector.add(step)
    (choice,) = collector.answer().choices
    assert len(choice.token_ids) == 4


async def test_a_prompt_of_token_ids_is_read_as_it_is(session: aiohttp.ClientSession) -> None:
    request = inference_pb2.GenerateRequest(model=MODEL, prompt_tokens=inference_pb2.TokenIds(ids=[11, 22, 33]))
    for name in ("vllm", "sglang", "tensorrt-llm", "llama-cpp"):
        async with conversing(name, session) as engine:
            answer = await engine.answer(request)
        assert answer.choices[0].text == "11 22 33"

"""Unary answers, streams, usage, stop sequences and errors, of every emulator."""

import asyncio

import pytest

from tests.conformance.emulators.caller import HELLO, LONG, Caller, chat
from tests.conformance.emulators.conftest import Start
from tests.conformance.emulators.habits import Habits

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
HELLO_CHAT_TOKENS = 3 + 4 + 3  # its words, a message's marks, the opening of the reply


async def test_chat_says_the_last_message_back_and_counts_the_end_of_sequence(caller: Caller) -> None:
    status, answer = await caller.post(CHAT, chat(HELLO))
    assert status == 200
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == HELLO
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (HELLO_CHAT_TOKENS, 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_streamed_chat_says_the_same_and_ends_with_usage_and_done(caller: Caller) -> None:
    status, heard = await caller.stream(CHAT, chat(HELLO, stream=True, stream_options={"include_usage": True}))
    assert status == 200
    assert heard.text == HELLO
    assert heard.finish_reasons == ["stop"]
    assert (heard.usage["prompt_tokens"], heard.usage["completion_tokens"]) == (HELLO_CHAT_TOKENS, 4)
    assert heard.is_done
    assert not heard.is_cut
    assert {frame["object"] for frame in heard.frames[:-1]} == {"chat.completion.chunk"}


async def test_the_same_question_gets_the_same_answer(caller: Caller) -> None:
    answers = [(await caller.post(CHAT, chat(LONG)))[1]["choices"] for _ in range(2)]
    assert answers[0] == answers[1]


async def test_a_limit_cuts_the_answer(caller: Caller) -> None:
    _, answer = await caller.post(CHAT, chat(LONG, max_tokens=3))
    assert answer["choices"][0]["message"]["content"] == "w0 w1 w2"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_a_stop_sequence_ends_the_answer(caller: Caller, habits: Habits) -> None:
    _, answer = await caller.post(CHAT, chat(HELLO, stop=["wor"]))
    _, heard = await caller.stream(CHAT, chat(HELLO, stop=["wor"], stream=True))
    shown = HELLO if habits.shows_stop else "Hello big "
    assert answer["choices"][0]["message"]["content"] == shown
    assert answer["choices"][0]["finish_reason"] == habits.stop_word
    assert answer["usage"]["completion_tokens"] == 3
    assert heard.text == shown
    assert heard.finish_reasons == [habits.stop_word]


async def test_a_completion_says_the_prompt_back(caller: Caller) -> None:
    status, answer = await caller.post(COMPLETION, {"prompt": "a b c", "max_tokens": 16})
    assert status == 200
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == "a b c"
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 4


async def test_a_streamed_completion_says_the_same(caller: Caller) -> None:
    _, heard = await caller.stream(COMPLETION, {"prompt": "a b c", "max_tokens": 2, "stream": True})
    assert heard.text == "a b"
    assert heard.finish_reasons == ["length"]
    assert heard.is_done


async def test_the_model_is_listed(start: Start) -> None:
    async with start(models=("some-model",)) as caller:
        status, page = await caller.get("/v1/models")
    assert status == 200
    assert '"id":"some-model"' in page


async def test_a_model_that_is_not_served_is_refused_where_the_engine_looks_at_it(
    caller: Caller, habits: Habits
) -> None:
    status, answer = await caller.post(CHAT, chat(HELLO, model="another"))
    assert status == (habits.refuses_model or 200)
    if habits.refuses_model:
        message = str(habits.error_message(answer))
        assert "another" in message or "cached snapshot" in message  # which MLX says, and names nothing


@pytest.mark.parametrize("body", [b"{", b'{"messages": 3}', b"{}"])
async def test_a_body_of_another_form_is_the_callers_fault(caller: Caller, habits: Habits, body: bytes) -> None:
    async with caller.raw_post(CHAT, body) as answer:
        assert answer.status in (400, 404, 422)
        assert await answer.read()


async def test_an_unknown_path_is_not_found(caller: Caller) -> None:
    assert (await caller.get("/no/such/path"))[0] == 404


async def test_a_prompt_that_does_not_fit_is_refused(start: Start, habits: Habits) -> None:
    async with start(context_tokens_max=16) as caller:
        status, answer = await caller.post(CHAT, chat(LONG))
    assert 400 <= status < 500
    assert habits.error_message(answer)


async def test_sixty_four_at_once_wait_for_their_turn(start: Start, habits: Habits) -> None:
    async with start(places=8) as caller:
        await caller.close_gate()
        asked = [asyncio.create_task(caller.post(CHAT, chat(f"number {number}"))) for number in range(64)]
        await caller.until_state(running=8, waiting=56)
        if habits.running is not None and habits.waiting is not None:
            assert await caller.metric(habits.metrics_path, habits.running) == 8
            assert await caller.metric(habits.metrics_path, habits.waiting) == 56
        await caller.open_gate()
        answers = await asyncio.gather(*asked)
        assert [status for status, _ in answers] == [200] * 64
        said = [answer["choices"][0]["message"]["content"] for _, answer in answers]
        assert said == [f"number {number}" for number in range(64)]
        await caller.until_state(running=0, waiting=0, requests=64, generated_tokens=64 * 3)


async def test_one_request_too_many_is_refused_in_the_engines_words(start: Start, habits: Habits) -> None:
    async with start(places=1, queue_max=0) as caller:
        await caller.close_gate()
        first = asyncio.create_task(caller.post(CHAT, chat(HELLO)))
        await caller.until_state(running=1)
        status, answer = await caller.post(CHAT, chat(HELLO))
        assert status == habits.overloaded
        assert habits.error_message(answer)
        await caller.open_gate()
        assert (await first)[0] == 200


async def test_a_client_that_leaves_frees_its_place(start: Start) -> None:
    async with start(places=1) as caller:
        await caller.plan("hang", after_tokens=1)
        async with caller.streaming(CHAT, chat(LONG, stream=True)) as answer:
            await answer.content.readany()
            await caller.until_state(running=1, generated_tokens=1)
        await caller.until_state(running=0)
        assert (await caller.post(CHAT, chat(HELLO)))[0] == 200

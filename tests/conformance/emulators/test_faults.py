"""Each fault, of every emulator."""

import asyncio

import aiohttp
import pytest

from tests.conformance.emulators.caller import HELLO, LONG, Caller, chat
from tests.conformance.emulators.habits import Breaks, Habits, Heard

CHAT = "/v1/chat/completions"
STREAMED = chat(LONG, stream=True)


def assert_broken(heard: Heard, habits: Habits, breaks: Breaks) -> None:
    """The stream does not look finished, in the engine's own way of breaking."""
    assert heard.finish_reasons == []
    assert heard.is_cut == (breaks is Breaks.CUT)
    assert heard.is_done == (breaks is Breaks.ERROR_AND_DONE)
    assert len(heard.errors) == (0 if breaks in (Breaks.CUT, Breaks.SILENT) else 1)
    assert all(habits.error_message(error) for error in heard.errors)


async def test_refuse_resets_the_connection_without_an_answer(caller: Caller) -> None:
    await caller.plan("refuse")
    with pytest.raises(aiohttp.ClientError):
        await caller.post(CHAT, chat(HELLO))
    assert (await caller.post(CHAT, chat(HELLO)))[0] == 200


async def test_unavailable_is_said_in_the_engines_words(caller: Caller, habits: Habits) -> None:
    await caller.plan("unavailable")
    status, answer = await caller.post(CHAT, chat(HELLO))
    assert status == habits.overloaded
    assert habits.error_message(answer)


async def test_unavailable_meets_a_stream_before_or_within_it(caller: Caller, habits: Habits) -> None:
    await caller.plan("unavailable")
    status, heard = await caller.stream(CHAT, STREAMED)
    assert status == (200 if habits.refuses_stream_in_stream else habits.overloaded)
    assert heard.text == ""


async def test_hang_stops_the_tokens_but_not_the_health(caller: Caller) -> None:
    await caller.plan("hang", after_tokens=2)
    async with caller.streaming(CHAT, STREAMED) as answer:
        await answer.content.readany()
        await caller.until_state(generated_tokens=2)
        assert (await caller.get("/health"))[0] == 200
        assert (await caller.state())["running"] == 1


async def test_cut_breaks_the_transport_after_so_many_tokens(caller: Caller, habits: Habits) -> None:
    await caller.plan("cut", after_tokens=2)
    status, heard = await caller.stream(CHAT, STREAMED)
    assert status == 200
    assert heard.is_cut or habits.breaks is Breaks.SILENT  # where the end of the connection is that of the stream
    assert heard.finish_reasons == []
    assert not heard.is_done
    assert (await caller.post(CHAT, chat(HELLO)))[0] == 200


async def test_an_error_frame_breaks_the_stream_as_the_engine_does(caller: Caller, habits: Habits) -> None:
    await caller.plan("error_frame", after_tokens=2)
    status, heard = await caller.stream(CHAT, STREAMED)
    assert status == 200
    assert heard.text == "w0 w1"
    assert_broken(heard, habits, habits.breaks)


async def test_an_error_frame_is_a_status_for_a_unary_answer(caller: Caller, habits: Habits) -> None:
    await caller.plan("error_frame", after_tokens=2)
    status, answer = await caller.post(CHAT, chat(LONG))
    assert status == habits.broken
    assert habits.error_message(answer)


async def test_slow_delays_each_token(caller: Caller) -> None:
    await caller.plan("slow")
    asked = asyncio.create_task(caller.post(CHAT, chat(LONG)))
    await caller.until_state(generated_tokens=1)
    assert not asked.done()  # two hundred are to come
    asked.cancel()
    await asyncio.wait({asked})
    await caller.until_state(running=0)


async def test_garbage_is_a_frame_that_is_no_json(caller: Caller) -> None:
    await caller.plan("garbage", after_tokens=1)
    _, heard = await caller.stream(CHAT, chat(HELLO, stream=True))
    assert [frame for frame in heard.frames if isinstance(frame, str)]


async def test_garbage_is_a_body_that_is_no_json(caller: Caller) -> None:
    await caller.plan("garbage", after_tokens=1)
    async with caller.raw_post(CHAT, b'{"messages":[{"role":"user","content":"a b c"}]}') as answer:
        assert answer.status == 200
        with pytest.raises(ValueError, match="codec can't decode"):
            (await answer.read()).decode()


async def test_a_fault_hits_so_many_requests(caller: Caller, habits: Habits) -> None:
    await caller.plan("unavailable", requests=2)
    statuses = [(await caller.post(CHAT, chat(HELLO)))[0] for _ in range(3)]
    assert statuses == [habits.overloaded, habits.overloaded, 200]

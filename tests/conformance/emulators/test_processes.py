"""Start, SIGTERM, SIGKILL and death in the middle of a stream, with every emulator in a process of its own."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.conformance.emulators.caller import HELLO, LONG, Caller, chat
from tests.conformance.emulators.habits import Breaks, Habits, Heard, Term, parse_frames
from tests.support.nats import free_port
from tests.support.waiting import until, until_async

CHAT = "/v1/chat/completions"
STREAMED = chat(LONG, stream=True)
UNFINISHED_TOKENS = 3


class Process:
    """One emulator as a user starts it."""

    def __init__(self, process: subprocess.Popen[bytes], caller: Caller) -> None:
        self.process = process
        self.caller = caller

    @property
    def ended(self) -> bool:
        """It is no more."""
        return self.process.poll() is not None

    async def health(self) -> int | None:
        """The status of /health; None while the connection is refused."""
        try:
            return (await self.caller.get("/health"))[0]
        except aiohttp.ClientConnectorError:
            return None

    async def until_ready(self) -> None:
        """Returns once a request is answered."""

        async def answers() -> bool:
            try:
                return (await self.caller.post(CHAT, chat(HELLO, max_tokens=1)))[0] == 200
            except aiohttp.ClientConnectorError:
                return False

        await until_async(answers, "the emulator answers a request")

    async def until_ended(self) -> int:
        """Its exit status, once it has ended."""
        await until(lambda: self.ended, "the emulator ends")
        return self.process.wait()


@asynccontextmanager
async def emulator(kind: str, session: aiohttp.ClientSession, *options: str) -> AsyncIterator[Process]:
    """The emulator as a process, killed at the end."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "enginehouse.cli.engine", "emulate", "--kind", kind, "--port", str(port)]
    started = await asyncio.to_thread(subprocess.Popen, [*command, "--controls", *options], stdout=subprocess.DEVNULL)
    with started as process:
        try:
            yield Process(process, Caller(f"127.0.0.1:{port}", session))
        finally:
            process.kill()
            process.wait()


async def heard_after(running: Process, then: signal.Signals) -> Heard:
    """What a client hears of a stream when a signal comes after its first tokens."""
    async with running.caller.streaming(CHAT, STREAMED) as answer:
        raw, is_cut = b"", False
        while b"w1" not in raw:
            raw += await answer.content.readany()
        running.process.send_signal(then)
        try:
            async for chunk in answer.content.iter_any():
                raw += chunk
        except aiohttp.ClientError:
            is_cut = True
    return parse_frames(raw, is_cut)


async def test_it_says_that_it_loads_in_the_engines_way(habits: Habits, session: aiohttp.ClientSession) -> None:
    options = ("--load-s", "1", "--warmup-s", "0.5")
    async with emulator(habits.kind, session, *options) as running:
        seen: list[int | None] = []

        async def is_healthy() -> bool:
            seen.append(await running.health())
            return seen[-1] == 200

        await until_async(is_healthy, "/health says 200")
        assert seen[0] is None  # before there is a process that listens
        if habits.loading not in (None, 200):
            assert habits.loading in seen
        await running.until_ready()


async def test_sigterm_does_to_a_stream_what_the_engine_does(habits: Habits, session: aiohttp.ClientSession) -> None:
    # Two hundred tokens at this rate are a second's work, long enough for the signal to come in the middle.
    async with emulator(habits.kind, session, "--decode-rate", "200", *_drain(habits)) as running:
        await running.until_ready()
        heard = await heard_after(running, signal.SIGTERM)
        if habits.term is Term.DRAINS:
            assert heard.text == LONG
            assert heard.finish_reasons == ["stop"]
            assert heard.is_done
        else:
            assert heard.finish_reasons == []
            assert heard.is_done == (habits.term_breaks is Breaks.ERROR_AND_DONE)
            assert bool(heard.errors) == (habits.term_breaks is Breaks.ERROR_AND_DONE)
        assert await running.until_ended() == 0


def _drain(habits: Habits) -> tuple[str, ...]:
    """llama.cpp lets a stream stand still for 30 s before it cuts it; that is shortened."""
    return ("--drain-s", "0.3") if habits.kind == "llama-cpp" else ()


async def test_a_vllm_that_drains_finishes_streams_and_refuses_new_requests(session: aiohttp.ClientSession) -> None:
    async with emulator("vllm", session, "--drain-s", "20") as running:
        await running.until_ready()
        await running.caller.close_gate()
        asked = asyncio.create_task(running.caller.post(CHAT, chat(HELLO)))
        await running.caller.until_state(running=1)
        running.process.terminate()
        await running.caller.until_state(phase="ending")
        assert await running.health() == 200  # as the real one: it says so while it drains
        assert (await running.caller.post(CHAT, chat(HELLO)))[0] == 500
        await running.caller.open_gate()
        status, answer = await asked
        assert (status, answer["choices"][0]["message"]["content"]) == (200, HELLO)
        assert await running.until_ended() == 0


async def test_an_sglang_that_drains_takes_new_requests_and_says_503(session: aiohttp.ClientSession) -> None:
    async with emulator("sglang", session) as running:
        await running.until_ready()
        await running.caller.close_gate()
        asked = [asyncio.create_task(running.caller.post(CHAT, chat(HELLO)))]
        await running.caller.until_state(running=1)
        running.process.terminate()
        await running.caller.until_state(phase="ending")
        assert await running.health() == 503
        asked.append(asyncio.create_task(running.caller.post(CHAT, chat(HELLO))))
        await running.caller.until_state(running=2)
        await running.caller.open_gate()
        assert [status for status, _ in await asyncio.gather(*asked)] == [200, 200]
        assert await running.until_ended() == 0


@pytest.mark.parametrize("kind", ["tgi", "tensorrt-llm"])
async def test_one_that_drains_behind_a_closed_port_refuses_connections(
    kind: str, session: aiohttp.ClientSession
) -> None:
    async with emulator(kind, session, "--decode-rate", "100") as running:
        await running.until_ready()
        async with running.caller.streaming(CHAT, STREAMED) as answer:
            raw = await answer.content.readany()
            running.process.terminate()

            async def is_refused() -> bool:
                return await running.health() is None

            await until_async(is_refused, "connections are refused")
            assert not running.ended
            async for chunk in answer.content.iter_any():
                raw += chunk
        assert parse_frames(raw, is_cut=False).text == LONG
        assert await running.until_ended() == 0


async def test_a_vllm_that_does_not_drain_answers_unary_requests_with_an_error(
    session: aiohttp.ClientSession,
) -> None:
    async with emulator("vllm", session) as running:
        await running.until_ready()
        await running.caller.close_gate()
        asked = asyncio.create_task(running.caller.post(CHAT, chat(HELLO)))
        await running.caller.until_state(running=1)
        running.process.terminate()
        status, answer = await asked
        assert (status, answer["error"]["code"]) == (500, 500)
        assert await running.until_ended() == 0


async def test_a_signal_while_it_loads_ends_it(habits: Habits, session: aiohttp.ClientSession) -> None:
    async with emulator(habits.kind, session, "--load-s", "60") as running:
        await until(lambda: _has_handler(running.process.pid), "the process catches SIGTERM")
        running.process.terminate()
        assert await running.until_ended() == 0


def _has_handler(pid: int) -> bool:
    """Whether a process catches SIGTERM, from /proc."""
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
        caught = next(line for line in status if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & (1 << (signal.SIGTERM - 1)))


async def _listens(running: Process) -> bool:
    return await running.health() is not None


@pytest.mark.parametrize("way", ["fault", "signal"])
async def test_death_in_the_middle_breaks_the_stream(habits: Habits, session: aiohttp.ClientSession, way: str) -> None:
    async with emulator(habits.kind, session, "--decode-rate", "200") as running:
        await running.until_ready()
        if way == "fault":
            await running.caller.plan("die", after_tokens=UNFINISHED_TOKENS)
            _, heard = await running.caller.stream(CHAT, STREAMED)
        else:
            heard = await heard_after(running, signal.SIGKILL)
        assert heard.finish_reasons == []
        assert not heard.is_done
        assert heard.text
        assert await running.until_ended() == -signal.SIGKILL


async def test_a_fault_can_be_given_on_the_command_line(session: aiohttp.ClientSession) -> None:
    async with emulator("vllm", session, "--fault", "unavailable:0:1") as running:
        await until_async(lambda: _listens(running), "the port is open")
        statuses = [(await running.caller.post(CHAT, chat(HELLO)))[0] for _ in range(2)]
        assert statuses == [503, 200]


async def test_an_unknown_kind_is_refused_with_those_that_there_are(session: aiohttp.ClientSession) -> None:
    command = [sys.executable, "-P", "-m", "enginehouse.cli.engine", "emulate", "--kind", "abacus", "--port", "0"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "abacus" in done.stderr
    assert "tensorrt-llm" in done.stderr

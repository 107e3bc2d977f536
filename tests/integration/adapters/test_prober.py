"""What a node learns of an engine's template before it takes requests."""

import aiohttp
import pytest

from enginehouse.contract import EngineError
from enginehouse.services.node.prober import DialectProber, MeasuredReadiness
from enginehouse.v1 import admin_pb2, common_pb2
from tests.integration.adapters import tooled
from tests.integration.adapters.scripted import Exchange, Script, scripted_engine

CHAT = (common_pb2.OPERATION_CHAT,)
TEMPLATE, TURN, INSTRUCTIONS = 30, 5, 900
STOP = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":%d,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)


async def counting(exchange: Exchange) -> None:
    """Counts the tokens of a template that puts instructions before the first tool."""
    members = exchange.received.members
    assert isinstance(members["messages"], list)
    tokens = TEMPLATE + TURN * (len(members["messages"]) - 1) + (INSTRUCTIONS if "tools" in members else 0)
    await exchange.begin()
    await exchange.send(STOP % tokens)
    await exchange.end()


def answering_tools_with(status: int) -> Script:
    async def script(exchange: Exchange) -> None:
        if "tools" in exchange.received.members:
            await exchange.answer(b'{"error":{"message":"x","type":"y"}}', status=status)
        else:
            await counting(exchange)

    return script


async def probed(session: aiohttp.ClientSession, kind: str, script: Script) -> tuple[MeasuredReadiness, list[bool]]:
    """What was measured, and for each request whether it brought tools."""
    async with scripted_engine(script) as engine:
        prober = DialectProber(kind, admin_pb2.ENGINE_API_UNSPECIFIED, session, tooled.registry())
        readiness = await prober.probe_ready(engine.url.removeprefix("http://"), "served", CHAT)
        return readiness, ["tools" in received.members for received in engine.received]


async def test_instructions_about_tools_are_part_of_the_template(session: aiohttp.ClientSession) -> None:
    readiness, _ = await probed(session, tooled.KIND, counting)
    assert readiness == MeasuredReadiness(template_tokens=TEMPLATE + INSTRUCTIONS, message_tokens=TURN)


async def test_an_engine_that_offers_no_tools_is_asked_for_none(session: aiohttp.ClientSession) -> None:
    readiness, brought_tools = await probed(session, "external", counting)
    assert readiness == MeasuredReadiness(template_tokens=TEMPLATE, message_tokens=TURN)
    assert not any(brought_tools)


async def test_an_engine_that_refuses_tools_is_ready_without_them(session: aiohttp.ClientSession) -> None:
    readiness, brought_tools = await probed(session, tooled.KIND, answering_tools_with(400))
    assert readiness == MeasuredReadiness(template_tokens=TEMPLATE, message_tokens=TURN)
    assert any(brought_tools)


async def test_an_engine_that_fails_over_tools_is_not_ready(session: aiohttp.ClientSession) -> None:
    with pytest.raises(EngineError, match="status 500"):
        await probed(session, tooled.KIND, answering_tools_with(500))

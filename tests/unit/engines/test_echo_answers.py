"""What the echo engine says, worked out without its server."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.engines.echo._generation import generate
from enginehouse.engines.echo._tokens import (
    MESSAGE_TOKENS,
    REPLY_TOKENS,
    count_chat_tokens,
    count_tokens,
    once,
    over_and_over,
    tokens_of,
)
from enginehouse.engines.echo._vectors import embed, relevance

TEXTS = st.text(max_size=200)


@given(TEXTS)
def test_tokens_joined_are_the_text_and_none_is_shorter_than_a_byte(text: str) -> None:
    tokens = tokens_of(text)
    assert "".join(tokens) == text
    assert all(tokens)
    assert count_tokens(text) == len(tokens) <= len(text.encode())


def test_token_is_a_word_with_its_leading_space() -> None:
    assert tokens_of("Hello big  world \n") == ["Hello", " big", "  world", " \n"]


def test_template_adds_tokens_for_each_message_and_for_the_reply() -> None:
    assert count_chat_tokens(["one two"]) == 2 + MESSAGE_TOKENS + REPLY_TOKENS
    assert count_chat_tokens(["one two", "three"]) == 3 + 2 * MESSAGE_TOKENS + REPLY_TOKENS


@given(TEXTS, st.integers(1, 50))
def test_reply_is_the_text_cut_at_the_limit(text: str, tokens_max: int) -> None:
    reply = generate(once(text), tokens_max, [])
    tokens = tokens_of(text)
    assert list(reply.pieces) == tokens[:tokens_max]
    assert reply.finish_reason == ("length" if len(tokens) > tokens_max else "stop")


@given(TEXTS, st.integers(1, 50))
def test_endless_reply_has_exactly_as_many_tokens_as_the_limit(text: str, tokens_max: int) -> None:
    reply = generate(over_and_over(text), tokens_max, [])
    assert (len(reply.pieces), reply.finish_reason) == (tokens_max, "length")


@given(TEXTS, st.integers(1, 50), st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4))
def test_stop_sequence_never_shows_and_swallowed_tokens_count(text: str, tokens_max: int, stops: list[str]) -> None:
    whole = "".join(tokens_of(text)[:tokens_max])
    reply = generate(once(text), tokens_max, stops)
    assert whole.startswith(reply.text)
    assert not any(stop in reply.text for stop in stops)
    if not any(stop in whole for stop in stops):
        assert reply.text == whole
    else:
        assert reply.finish_reason == "stop"
        generated = "".join(tokens_of(text)[: len(reply.pieces)])
        assert any(stop in generated for stop in stops)
        assert not any(stop in "".join(tokens_of(text)[: len(reply.pieces) - 1]) for stop in stops)


def test_stop_sequence_across_tokens_is_found() -> None:
    reply = generate(once("one two three four"), 100, ["wo th"])
    assert (reply.pieces, reply.finish_reason) == (("one", " t", ""), "stop")


@given(TEXTS, st.integers(1, 300))
def test_embedding_is_a_unit_vector_and_always_the_same(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.hypot(*vector) == pytest.approx(1.0)
    assert embed(text, dimensions) == vector


def test_relevance_is_the_share_of_common_words() -> None:
    assert relevance("a b", "B a") == 1.0
    assert relevance("a b", "b c") == pytest.approx(1 / 3)
    assert relevance("a", "") == 0.0
    assert relevance("", "") == 0.0

"""Token ids into text, piece by piece."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.adapters._token_engine.bundle import unpack
from enginehouse.adapters._token_engine.template import ChatTemplate
from enginehouse.adapters._token_engine.text import StopSequences, TokenText
from enginehouse.adapters._token_engine.tokenizer import EngineTokenizer
from enginehouse.contract import EngineError, RequestError
from enginehouse.engines.emulators.core import byte_tokenizer

BYTES = EngineTokenizer(unpack(byte_tokenizer.archive(64), "test"), "test")
FIRST_BYTE = 3


def pieces(text: str, before: str = "") -> list[str]:
    stream = TokenText(BYTES, BYTES.encode_prompt(before))
    return [stream.push(FIRST_BYTE + byte) for byte in text.encode()]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_pieces_add_up_to_the_text_whatever_stood_before(text: str, before: str) -> None:
    written = text.replace("\N{REPLACEMENT CHARACTER}", "?")  # stands for a character that is not whole yet
    assert "".join(pieces(written, before)) == written


def test_half_a_character_is_never_told() -> None:
    assert pieces("a🎉b") == ["a", "", "", "", "🎉", "b"]


def test_bytes_that_are_no_character_do_not_hold_a_text_back_for_ever() -> None:
    stream = TokenText(BYTES, [])
    told = [stream.push(FIRST_BYTE + 0xFF) for _ in range(9)]
    assert any(told)
    assert stream.push(FIRST_BYTE + ord("a")).endswith("a")


def test_special_tokens_have_no_text() -> None:
    assert TokenText(BYTES, []).push(2) == ""


@settings(max_examples=60, deadline=None)
@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_a_cut_text_is_the_same_however_it_comes(text: str, stops: list[str], data: st.DataObject) -> None:
    sequences = StopSequences(stops)
    told, rest = "", text
    while rest and not sequences.met:
        size = data.draw(st.integers(1, len(rest)))
        told, rest = told + sequences.push(rest[:size]), rest[size:]
    told += sequences.finish("")
    assert text.startswith(told)
    assert not any(stop in told for stop in stops)
    assert bool(sequences.met) == any(stop in text for stop in stops)


def test_what_was_held_back_is_told_at_the_end() -> None:
    sequences = StopSequences(["END"])
    assert sequences.push("the EN") == "the "
    assert sequences.finish("") == "EN"


def test_a_tokenizer_neither_cuts_nor_fills_a_text_whatever_its_file_says() -> None:
    files = unpack(byte_tokenizer.archive(64), "test")
    tokenizer = json.loads(files.tokenizer)
    tokenizer["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer["padding"] = {
        "strategy": {"Fixed": 4},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    changed = EngineTokenizer(replace(files, tokenizer=json.dumps(tokenizer).encode()), "test")
    assert changed.encode_prompt("a") == BYTES.encode_prompt("a")
    assert changed.encode_prompt("abcdefgh") == BYTES.encode_prompt("abcdefgh")


def rendered(template: str, *messages: dict[str, str]) -> str:
    return ChatTemplate(template, {"bos_token": "<s>"}, "test").render(messages)


def test_a_template_finds_what_templates_of_transformers_expect() -> None:
    template = """{{ bos_token }}{% for message in messages %}
    {%- if loop.index == 3 %}{% break %}{% endif %}
    {%- generation %}{{ message | tojson }}{% endgeneration %}
{% endfor %}{% if not tools is defined or tools is none %}no tools{% endif %} {{ strftime_now("%Y") | length }}
{%- if add_generation_prompt %} go{% endif %}"""
    message = {"role": "user", "content": "<é>"}
    assert rendered(template, message) == '<s>{"role": "user", "content": "<é>"}no tools 4 go'


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[5].role }}",
        "{% for x in range(999999999) %}{% endfor %}",
    ],
)
def test_a_template_can_neither_reach_nor_change_anything(template: str) -> None:
    with pytest.raises(RequestError, match=r"conversation\.messages"):
        rendered(template, {"role": "user", "content": "secret"})


def test_a_template_that_is_none_is_the_engines_fault() -> None:
    with pytest.raises(EngineError, match="chat template"):
        rendered("{% for %}")

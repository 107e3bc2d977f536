"""Splices say on bytes what they say on JSON."""

import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.adapters import add_members, apply, cap_output, combine, remove_hints, set_model
from enginehouse.adapters.openai import inspect
from enginehouse.v1 import common_pb2
from tests.property.adapters.strategies import NAME, chat_members, written

USAGE = '"stream_options":{"include_usage":true},"timings_per_token":true'


def capped(members: dict[str, object], tokens: int) -> dict[str, object]:
    """What a cap means, said on the parsed body."""
    names = [name for name in ("max_tokens", "max_completion_tokens") if name in members] or ["max_tokens"]
    limits = {name: members.get(name) for name in names}
    return members | {name: min(limit, tokens) if isinstance(limit, int) else tokens for name, limit in limits.items()}


@settings(deadline=None, max_examples=200)
@given(chat_members(), st.randoms(use_true_random=False), NAME, st.integers(1, 1000), st.sets(st.sampled_from("mhcu")))
def test_any_rewrite_of_any_body_is_the_rewrite_of_what_it_says(
    members: dict[str, object], random: Random, served: str, tokens: int, rewrites: set[str]
) -> None:
    body = written(members, random).encode()
    layout = inspect(common_pb2.OPERATION_CHAT, body).layout
    assert layout
    expected, groups = members, []
    if "m" in rewrites:
        expected = expected | {"model": served}
        groups.append(set_model(layout, served))
    if "h" in rewrites:
        expected = {name: value for name, value in expected.items() if name != "enginehouse"}
        groups.append(remove_hints(layout))
    if "c" in rewrites:
        expected = capped(expected, tokens)
        groups.append(cap_output(layout, tokens))
    if "u" in rewrites:
        expected = expected | {"stream_options": {"include_usage": True}, "timings_per_token": True}
        groups.append(add_members(layout, USAGE))
    splices = combine(*groups)
    assert json.loads(apply(body, splices)) == expected
    ends = [0, *(splice.offset + splice.length for splice in splices)]
    assert all(end <= splice.offset for end, splice in zip(ends, splices, strict=False))
    assert all(splice.text.isascii() for splice in splices)


@settings(deadline=None)
@given(chat_members(), st.randoms(use_true_random=False))
def test_every_span_is_where_its_member_is(members: dict[str, object], random: Random) -> None:
    body = written(members, random).encode()
    layout = inspect(common_pb2.OPERATION_CHAT, body).layout
    assert layout
    assert [span.name for span in layout.members] == list(members)
    for span in layout.members:
        assert json.loads(body[span.value_start : span.value_end]) == members[span.name]
        key, _, _ = body[span.start :].partition(b":")
        assert json.loads(key) == span.name

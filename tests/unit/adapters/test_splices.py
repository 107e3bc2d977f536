import json

import pytest

from enginehouse.adapters import Splice, add_members, apply, cap_output, combine, remove_hints, set_model
from enginehouse.adapters.openai import inspect
from enginehouse.adapters.splices import BodyLayout
from enginehouse.contract import InternalError
from enginehouse.v1 import common_pb2

MESSAGES = '"messages": [{"role": "user", "content": "Grüße, 世界 🌍 {\\"model\\": 1}"}]'


def layout_of(body: bytes) -> BodyLayout:
    layout = inspect(common_pb2.OPERATION_CHAT, body).layout
    assert layout
    return layout


def rewritten(text: str, *names: str) -> object:
    """What a body says after the named rewrites."""
    body = text.encode()
    layout = layout_of(body)
    rewrites = {
        "model": set_model(layout, "sérved"),
        "cap": cap_output(layout, 50),
        "hints": remove_hints(layout),
        "usage": add_members(layout, '"stream_options":{"include_usage":true},"timings_per_token":true'),
    }
    return json.loads(apply(body, combine(*(rewrites[name] for name in names))))


def test_the_model_is_replaced_behind_text_of_several_bytes() -> None:
    said = rewritten("{" + MESSAGES + ', "model" : "public" }', "model")
    assert said == json.loads("{" + MESSAGES + ', "model": "sérved"}')


@pytest.mark.parametrize(
    "hints",
    [
        '{"enginehouse": {"chip": "gpu"}, "model": "m", ' + MESSAGES + "}",
        '{"model": "m", "enginehouse": {"chip": "gpu"} , ' + MESSAGES + "}",
        '{"model": "m", ' + MESSAGES + ' , "enginehouse": {"chip": "gpu"} }',
    ],
)
def test_our_own_member_goes_with_its_comma_wherever_it_stands(hints: str) -> None:
    assert rewritten(hints, "hints") == json.loads('{"model": "m", ' + MESSAGES + "}")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("", {"max_tokens": 50}),
        ('"max_tokens": 80,', {"max_tokens": 50}),
        ('"max_tokens": 20,', {"max_tokens": 20}),
        ('"max_tokens": null,', {"max_tokens": 50}),
        ('"max_completion_tokens": 80,', {"max_completion_tokens": 50}),
        ('"max_tokens": 20, "max_completion_tokens": 80,', {"max_tokens": 20, "max_completion_tokens": 50}),
    ],
)
def test_every_output_limit_is_held_to_the_cap_and_none_is_raised(limits: str, expected: dict[str, int]) -> None:
    said = rewritten("{" + limits + '"model": "m", ' + MESSAGES + "}", "cap")
    assert isinstance(said, dict)
    assert {name: value for name, value in said.items() if name.startswith("max_")} == expected


def test_members_that_are_there_are_replaced_and_others_inserted() -> None:
    said = rewritten('{"model": "m", "stream_options": {"include_usage": false}, ' + MESSAGES + "}", "usage")
    assert isinstance(said, dict)
    assert said["stream_options"] == {"include_usage": True}
    assert said["timings_per_token"] is True


def test_all_rewrites_go_together() -> None:
    said = rewritten('{"enginehouse":{"session":"s"},"model":"m",' + MESSAGES + "}", "usage", "hints", "cap", "model")
    assert said == {
        "model": "sérved",
        "max_tokens": 50,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,
        **json.loads("{" + MESSAGES + "}"),
    }


def test_combined_splices_are_in_order_and_apart() -> None:
    splices = combine([Splice(9, 2, "c"), Splice(5, 0, "a")], [Splice(5, 0, "b"), Splice(5, 2, "")])
    assert splices == (Splice(5, 2, "ab"), Splice(9, 2, "c"))


def test_splices_are_ascii_because_they_travel_in_a_header() -> None:
    layout = layout_of(b'{"model": "m", ' + MESSAGES.encode() + b"}")
    assert all(splice.text.isascii() and "\n" not in splice.text for splice in set_model(layout, "sérv\ned"))


def test_a_body_without_hints_needs_no_splice() -> None:
    assert remove_hints(layout_of(b'{"model": "m", ' + MESSAGES.encode() + b"}")) == ()


def test_splices_that_overlap_are_our_own_mistake() -> None:
    with pytest.raises(InternalError, match="overlap at byte 4"):
        combine([Splice(2, 5, ""), Splice(4, 1, "")])


def test_members_that_are_no_json_are_our_own_mistake() -> None:
    with pytest.raises(InternalError, match="not JSON"):
        add_members(layout_of(b'{"model": "m", ' + MESSAGES.encode() + b"}"), '"a":')


def test_a_body_without_members_cannot_be_rewritten() -> None:
    with pytest.raises(InternalError, match="without members"):
        set_model(BodyLayout(1, ()), "m")


@pytest.mark.parametrize("splices", [[Splice(3, 5, "")], [Splice(2, 1, ""), Splice(0, 1, "")]])
def test_a_splice_that_does_not_fit_the_body_is_our_own_mistake(splices: list[Splice]) -> None:
    with pytest.raises(InternalError, match="does not fit"):
        apply(b"{}  ", splices)

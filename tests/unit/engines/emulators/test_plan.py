"""What an emulated engine answers."""

import pytest

from enginehouse.engines.emulators.core.plan import BYTE_ID_MIN, EOS_ID, FinishKind, plan_echo, plan_ids, token_id


def test_the_end_of_sequence_is_a_token_that_counts() -> None:
    plan = plan_echo("a b", 10)
    assert [token.raw for token in plan.tokens] == ["a", " b", "</s>"]
    assert plan.tokens[-1].id == EOS_ID
    assert plan.finish.kind is FinishKind.EOS
    assert plan.text == plan.raw_text == "a b"


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_that_is_met_leaves_no_room_for_the_end_of_sequence(limit: int) -> None:
    plan = plan_echo("a b", limit)
    assert len(plan.tokens) == limit
    assert plan.finish.kind is FinishKind.LENGTH


def test_an_empty_prompt_is_answered_with_the_end_of_sequence_alone() -> None:
    plan = plan_echo("", 10)
    assert [token.is_special for token in plan.tokens] == [True]


def test_a_stop_sequence_is_in_the_raw_text_and_not_in_the_text() -> None:
    plan = plan_echo("Hello big world", 10, ["wor", "zzz"])
    assert plan.text == "Hello big "
    assert plan.raw_text == "Hello big world"
    assert (plan.finish.kind, plan.finish.stop) == (FinishKind.STOP_SEQUENCE, "wor")


def test_the_first_of_two_stop_sequences_ends_the_answer() -> None:
    assert plan_echo("a b c", 10, ["c", "b"]).finish.stop == "b"


def test_a_request_that_ignores_the_end_runs_to_its_limit() -> None:
    plan = plan_echo("a b", 5, ends=False)
    assert len(plan.tokens) == 5
    assert plan.finish.kind is FinishKind.LENGTH


def test_ids_are_the_same_every_time_and_fit_in_32_bits() -> None:
    assert token_id("word") == token_id("word")
    assert all(1000 <= token_id(word) < 2**31 for word in ("a", " b", "Ж", ""))


def test_ids_are_said_back_and_stop_where_their_bytes_spell_a_stop() -> None:
    ids = [BYTE_ID_MIN + byte for byte in "grüß dich".encode()]
    plan = plan_ids(ids, 100, ["ß"])
    assert [token.id for token in plan.tokens] == ids[:6]
    assert plan.finish.stop == "ß"
    assert [token.id for token in plan_ids([70_000, 5], 10).tokens] == [70_000, 5, EOS_ID]
    assert [token.id for token in plan_ids([7, 8], 5, ends=False).tokens] == [7, 8, 7, 8, 7]

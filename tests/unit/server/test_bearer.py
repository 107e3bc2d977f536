"""Reading the authorization header."""

import pytest

from enginehouse.contract import Reason, RequestError
from enginehouse.services.server import bearer_token


@pytest.mark.parametrize("header", ["Bearer ehk_a", "bearer ehk_a", "BEARER   ehk_a "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert bearer_token([("user-agent", "x"), ("authorization", header)]) == "ehk_a"


def test_bytes_are_read_as_text() -> None:
    assert bearer_token([("authorization", b"Bearer ehk_a")]) == "ehk_a"


@pytest.mark.parametrize("metadata", [None, [], [("x-authorization", "Bearer a")]])
def test_no_header_is_a_missing_key(metadata: list[tuple[str, str | bytes]] | None) -> None:
    with pytest.raises(RequestError) as caught:
        bearer_token(metadata)
    assert caught.value.reason is Reason.MISSING_KEY


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "ehk_secret", "Bearerehk_a"])
def test_another_scheme_is_refused_without_repeating_it(header: str) -> None:
    with pytest.raises(RequestError) as caught:
        bearer_token([("authorization", header)])
    assert caught.value.reason is Reason.INVALID_KEY
    assert "secret" not in caught.value.message

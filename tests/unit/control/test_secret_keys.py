"""Secrets of API keys."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.services.control.secret_keys import hash_of, is_secret, new_secret_key, prefix_of


@given(seed=st.binary(min_size=40, max_size=40))
def test_every_secret_has_the_form_and_the_prefix_it_is_found_by(seed: bytes) -> None:
    parts = iter((seed[:8], seed[8:]))
    key = new_secret_key(lambda count: next(parts)[:count])
    assert re.fullmatch(r"ehk_[a-z2-7]{12}_[A-Za-z0-9_-]{43}", key.text)
    assert prefix_of(key.text) == key.prefix == key.text[:16]
    assert hash_of(key.text) == hashlib.sha256(key.text.encode()).digest()
    assert is_secret(key.text, hash_of(key.text))
    assert key.text not in repr(key)


def test_no_two_secrets_are_alike() -> None:
    assert len({new_secret_key().text for _ in range(100)}) == 100


@pytest.mark.parametrize("text", ["", "ehk_", "ehk_aaaaaaaaaaaa", "sk-aaaa", "ehk_AAAAAAAAAAAA_" + "a" * 43])
def test_what_is_no_key_has_no_prefix(text: str) -> None:
    assert prefix_of(text) is None


def test_another_secret_with_the_same_prefix_is_another_key() -> None:
    key = new_secret_key()
    forged = key.prefix + "_" + "a" * 43
    assert prefix_of(forged) == key.prefix
    assert not is_secret(forged, hash_of(key.text))

"""The secrets of API keys: made, hashed, compared. A secret is shown once and stored never."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

SCHEME = "ehk_"
_PREFIX_LENGTH = 12
_SECRET = re.compile(r"(ehk_[a-z2-7]{12})_[A-Za-z0-9_-]{43}")

RandomBytes = Callable[[int], bytes]
"""So many random bytes, fit for secrets."""


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A new key: ``ehk_<12 of base32>_<43 of base64url>``, 256 random bits in its last part."""

    text: str
    prefix: str

    def __repr__(self) -> str:
        return f"SecretKey({self.prefix})"


def new_secret_key(random_bytes: RandomBytes = secrets.token_bytes) -> SecretKey:
    """Makes a key."""
    prefix = SCHEME + base64.b32encode(random_bytes(8)).decode().lower()[:_PREFIX_LENGTH]
    return SecretKey(f"{prefix}_{base64.urlsafe_b64encode(random_bytes(32)).decode().rstrip('=')}", prefix)


def hash_of(secret: str) -> bytes:
    """What is stored of a key. No salt and no slow hash: 256 random bits cannot be guessed from it."""
    return hashlib.sha256(secret.encode()).digest()


def is_secret(secret: str, stored: bytes) -> bool:
    """Whether `stored` is the hash of `secret`, in constant time."""
    return hmac.compare_digest(hash_of(secret), stored)


def prefix_of(secret: str) -> str | None:
    """The part of a key by which it is looked up. None: this is no key."""
    match = _SECRET.fullmatch(secret)
    return match[1] if match else None

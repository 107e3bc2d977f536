"""API keys: found by their prefix, compared by hash in constant time. Nothing here keeps or logs a secret."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from enginehouse.contract import Reason, RequestError
from enginehouse.router import Principal
from enginehouse.v1 import admin_pb2

KEY_MARK = "ehk_"
PREFIX_LENGTH = len(KEY_MARK) + 12
_NO_HASH = bytes(hashlib.sha256().digest_size)
_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as the router knows it. `expires_ms` is Unix time; None: never."""

    principal: Principal
    role: admin_pb2.KeyRole.ValueType
    secret_sha256: bytes
    expires_ms: int | None


class KeyRing:
    """All keys, by prefix."""

    def __init__(self, keys: Iterable[admin_pb2.Key] = ()) -> None:
        self._keys = {key.prefix: _known(key) for key in keys}

    def authenticate(self, headers: Mapping[str, str], now_ms: int) -> Principal:
        """Whose request it is, from "authorization: Bearer KEY" or "x-api-key: KEY".

        Raises:
            RequestError: there is no key (MISSING_KEY), or it is unknown, wrong or expired (INVALID_KEY).
        """
        secret = _secret(headers)
        if not secret:
            raise RequestError(
                "no API key: send one as 'authorization: Bearer KEY' or 'x-api-key: KEY'", Reason.MISSING_KEY
            )
        known = self._keys.get(secret[:PREFIX_LENGTH])
        digest = hashlib.sha256(secret.encode()).digest()
        if not hmac.compare_digest(digest, known.secret_sha256 if known else _NO_HASH) or known is None:
            raise RequestError("the API key is not known; it may have been deleted", Reason.INVALID_KEY)
        if known.expires_ms is not None and now_ms >= known.expires_ms:
            raise RequestError("the API key has expired; ask for a new one", Reason.INVALID_KEY)
        return known.principal


def _secret(headers: Mapping[str, str]) -> str:
    authorization = headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get("x-api-key", "").strip()


def _known(key: admin_pb2.Key) -> KnownKey:
    # The four ids stand at the odd places of "organizations/…/tenants/…/projects/…/keys/…".
    segments = key.name.split("/")
    principal = Principal(segments[1], segments[3], segments[5], segments[7])
    expires_ms = key.expire_time.ToMilliseconds() if key.HasField("expire_time") else None
    return KnownKey(principal, key.role, key.secret_sha256, expires_ms)

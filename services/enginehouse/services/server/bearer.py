"""Bearer tokens in call metadata."""

from collections.abc import Iterable

from enginehouse.contract import Reason, RequestError

_SCHEME = "bearer "


def bearer_token(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The token of the ``authorization`` header (RFC 6750; the scheme in any case).

    Raises:
        RequestError: there is no such header, or it is not of this form.
    """
    for name, value in metadata or ():
        if name != "authorization":
            continue
        text = value if isinstance(value, str) else value.decode("latin-1")
        token = text[len(_SCHEME) :].strip()
        if text[: len(_SCHEME)].lower() != _SCHEME or not token:
            raise RequestError("the authorization header must read 'Bearer <key>'", Reason.INVALID_KEY)
        return token
    raise RequestError("no key: send the header 'authorization: Bearer <key>'", Reason.MISSING_KEY)

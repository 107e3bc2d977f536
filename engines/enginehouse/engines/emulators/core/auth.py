"""API keys, on the routes that an engine guards, with the refusal that it gives."""

import hmac
from collections.abc import Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from enginehouse.engines.emulators.core.answers import HttpError


def guard(api_key: str | None, guards: Callable[[web.Request], bool], refusal: HttpError) -> Iterable[Middleware]:
    """What stands before the routes that are guarded; nothing without a key."""
    if api_key is None:
        return
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if guards(request) and not hmac.compare_digest(given, expected):
            raise refusal
        return await handler(request)

    yield check

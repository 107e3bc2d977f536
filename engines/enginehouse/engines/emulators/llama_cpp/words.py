"""llama.cpp's errors (tools/server/server-common.cpp, `format_error_response`; recorded from xllamacpp 2026.10)."""

from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError
from enginehouse.engines.emulators.core.bodies import BodyError
from enginehouse.engines.emulators.core.errors import GenerationBroken, Overloaded


def worded(message: str, kind: str, status: int, **members: object) -> HttpError:
    """llama.cpp's error."""
    return HttpError(status, {"error": {"code": int(status), "message": message, "type": kind, **members}})


def bad_request(message: str) -> HttpError:
    """What llama.cpp answers to a request that it cannot serve as it is."""
    return worded(message, "invalid_request_error", HTTPStatus.BAD_REQUEST)


def not_valid(failure: BodyError) -> HttpError:
    """What llama.cpp answers to a body that is not of the form asked for. It quotes inputs; this quotes none."""
    if not failure.is_json:
        return bad_request("[json.exception.parse_error.101] parse error: syntax error while parsing value")
    if failure.first["type"] == "missing":
        return bad_request(f"'{failure.path}' is required")
    return bad_request(f"'{failure.path}': {failure.first['msg']}")


class LlamaCppWords(ErrorWords):
    """llama.cpp's words."""

    def trouble(self, error: EngineTrouble) -> HttpError:
        """Loading, which is what it says 503 for; else 500."""
        if isinstance(error, GenerationBroken):
            return self.internal()
        message = "Service unavailable" if isinstance(error, Overloaded) else "Loading model"
        return worded(message, "unavailable_error", HTTPStatus.SERVICE_UNAVAILABLE)

    def of_http(self, error: web.HTTPException) -> HttpError:
        """Unknown paths and wrong methods are one thing to it."""
        return worded("File Not Found", "not_found_error", HTTPStatus.NOT_FOUND)

    def internal(self) -> HttpError:
        """A failure inside."""
        return worded("Compute error.", "server_error", HTTPStatus.INTERNAL_SERVER_ERROR)

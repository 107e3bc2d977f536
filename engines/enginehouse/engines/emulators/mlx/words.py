"""mlx_lm.server's errors (mlx_lm/server.py, 0.32.2): a text in an object, or plain bytes for an unknown path."""

from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError
from enginehouse.engines.emulators.core.bodies import BodyError


def worded(message: str, status: int = HTTPStatus.BAD_REQUEST) -> HttpError:
    """mlx_lm.server's error."""
    return HttpError(status, {"error": message})


def not_valid(failure: BodyError) -> HttpError:
    """What it answers to a body that is not of the form asked for."""
    if not failure.is_json:
        return worded("Invalid JSON in request body: Expecting value")
    if failure.first["type"] == "missing" and failure.path == "messages":
        return worded("Request did not contain messages")
    if failure.first["type"] == "missing":
        return worded(f"Request did not contain a {failure.path}")
    return worded(f"{failure.path} must be of another type")


class MlxWords(ErrorWords):
    """mlx_lm.server's words."""

    def trouble(self, error: EngineTrouble) -> HttpError:
        """Whatever fails before the first token is 404."""
        return worded(f"The generation failed: {type(error).__name__}", HTTPStatus.NOT_FOUND)

    def of_http(self, error: web.HTTPException) -> HttpError:
        """Unknown paths and wrong methods are one thing to it. The content type says JSON all the same."""
        return HttpError(HTTPStatus.NOT_FOUND, "Not Found", headers={"Content-Type": "application/json"})

    def internal(self) -> HttpError:
        """A failure inside."""
        return worded("internal error", HTTPStatus.NOT_FOUND)

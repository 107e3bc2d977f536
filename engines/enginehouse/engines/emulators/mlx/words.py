"""mlx_lm.server's errors (mlx_lm/server.py, 0.32.2): a text in an object, or plain bytes for an unknown path."""

import json
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError
from enginehouse.engines.emulators.core.bodies import BodyError

# What huggingface_hub says where HF_HUB_OFFLINE is set, as our descriptor sets it.
NO_HUB = (
    "Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and outgoing "
    "traffic has been disabled. To enable repo look-ups and downloads online, set 'HF_HUB_OFFLINE=0' as environment "
    "variable."
)
_EMPTY = "Cannot apply chat template to an empty conversation. Provide at least one message."


def worded(message: str, status: int = HTTPStatus.BAD_REQUEST) -> HttpError:
    """mlx_lm.server's error."""
    return HttpError(status, {"error": message})


def parsed(raw: bytes) -> Mapping[str, object]:
    """The body.

    Raises:
        HttpError: it is no JSON, or no object.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise worded(f"Invalid JSON in request body: {error}") from None
    if not isinstance(body, dict):
        raise worded("Request should be a JSON dictionary")
    return body


def not_valid(failure: BodyError) -> HttpError:
    """What it answers to a body without a prompt that it could read. A failure with the prompt itself is a 404."""
    if failure.first["type"] == "missing":
        return worded(f"Request did not contain {'messages' if failure.path == 'messages' else 'a ' + failure.path}")
    is_empty = failure.first["type"] == "too_short" and failure.path == "messages"
    message = _EMPTY if is_empty else f"{failure.path} must be of another type"
    return worded(message, HTTPStatus.NOT_FOUND)


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

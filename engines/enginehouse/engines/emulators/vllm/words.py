"""vLLM's errors (vllm/entrypoints/serve/exception_handling, 0.32)."""

import json
from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError, Json, fastapi_error
from enginehouse.engines.emulators.core.bodies import BodyError
from enginehouse.engines.emulators.core.errors import BrokenBy, GenerationBroken, Overloaded, Unavailable

_ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_DRAINING = "cannot schedule new futures after shutdown"
_QUOTED_MAX = 200


def error_body(message: str, kind: str, status: int, param: str | None = None) -> Json:
    """vLLM's ErrorResponse."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, param: str | None = None, value: object = None) -> HttpError:
    """What vLLM answers to a request that it cannot serve as it is; what is wrong, with its value, ends the message."""
    if param is not None:
        named = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
        message = f"{message} ({named})"
    status = HTTPStatus.BAD_REQUEST
    return HttpError(status, error_body(message, "BadRequestError", status, param))


def unknown_model(model: str, served: tuple[str, ...]) -> HttpError:
    """What vLLM answers for a model that it does not serve."""
    status = HTTPStatus.NOT_FOUND
    message = f"The model `{model}` does not exist. Valid aliases: {', '.join(served)}."
    return HttpError(status, error_body(message, "NotFoundError", status, "model"))


def not_valid(error: BodyError, raw: bytes) -> HttpError:
    """What vLLM answers to a body that is not of the form asked for."""
    if not error.is_json:
        return _no_json(raw)
    if error.path == "prompt" and error.first["type"] == "missing":
        return bad_request("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if error.path == "messages" and error.first["type"] == "too_short":
        return bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    first = error.first
    param = ".".join(["body", error.path] if error.path else ["body"])
    return invalid([{"type": first["type"], "loc": param, "msg": first["msg"], "input": _quoted(first["input"])}])


def invalid(errors: list[Json]) -> HttpError:
    """What FastAPI found wrong, as vLLM lists it."""
    label = "error" if len(errors) == 1 else "errors"
    message = f"{len(errors)} validation {label}:\n" + "\n".join(f"  {error}" for error in errors)
    status = HTTPStatus.BAD_REQUEST
    return HttpError(status, error_body(message, status.phrase, status, str(errors[0]["loc"])))


def missing(names: tuple[str, ...], body: object) -> HttpError:
    """What vLLM answers where the body fits none of several forms."""
    return invalid(
        [{"type": "missing", "loc": f"body.{name}", "msg": "Field required", "input": _quoted(body)} for name in names]
    )


def no_json_type() -> HttpError:
    """What vLLM answers to a body that is not said to be JSON."""
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    status = HTTPStatus.BAD_REQUEST
    return HttpError(status, error_body(message, status.phrase, status))


def _no_json(raw: bytes) -> HttpError:
    position, reason = 0, "Expecting value"
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        position, reason = error.pos, error.msg
    except ValueError:
        reason = "invalid UTF-8"
    entry: Json = {"type": "json_invalid", "loc": f"body.{position}", "msg": "JSON decode error"}
    return invalid([{**entry, "input": _quoted({}), "ctx": {"error": reason}}])


def _quoted(value: object) -> str:
    """An input as vLLM repeats it: of objects and lists the size, of a text its beginning."""
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= _QUOTED_MAX else text[:_QUOTED_MAX] + "...[truncated]"


class VllmWords(ErrorWords):
    """vLLM's words."""

    def trouble(self, error: EngineTrouble) -> HttpError:
        """Too busy is 503, which vLLM says only where admission control is on; all else is 500, draining included."""
        if isinstance(error, Overloaded):
            status = HTTPStatus.SERVICE_UNAVAILABLE
            return HttpError(status, error_body("The server is overloaded.", status.phrase, status))
        if isinstance(error, GenerationBroken) and error.cause is BrokenBy.FAULT:
            return self.internal()
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        message = _DRAINING if isinstance(error, Unavailable) else _ENGINE_DEAD
        return HttpError(status, error_body(message, "InternalServerError", status))

    def of_http(self, error: web.HTTPException) -> HttpError:
        """As FastAPI answers by default: vLLM's own handler sees only what its routes raise."""
        return fastapi_error(error)

    def internal(self) -> HttpError:
        """A GenerationError."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return HttpError(status, error_body("Internal server error", "InternalServerError", status))

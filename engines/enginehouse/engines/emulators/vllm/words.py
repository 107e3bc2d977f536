"""vLLM's errors (vllm/entrypoints/serve/exception_handling, 0.32)."""

from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError, Json, fastapi_error
from enginehouse.engines.emulators.core.bodies import BodyError
from enginehouse.engines.emulators.core.errors import BrokenBy, GenerationBroken, Overloaded

_ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def error_body(message: str, kind: str, status: int, param: str | None = None) -> Json:
    """vLLM's ErrorResponse."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, param: str | None = None) -> HttpError:
    """What vLLM answers to a request that it cannot serve as it is."""
    status = HTTPStatus.BAD_REQUEST
    return HttpError(status, error_body(message, "BadRequestError", status, param))


def unknown_model(model: str) -> HttpError:
    """What vLLM answers for a model that it does not serve."""
    status = HTTPStatus.NOT_FOUND
    return HttpError(status, error_body(f"The model `{model}` does not exist.", "NotFoundError", status, "model"))


def not_valid(error: BodyError) -> HttpError:
    """What vLLM answers to a body that is not of the form asked for. It quotes inputs; this quotes none."""
    first = error.first
    param = ".".join(["body", error.path] if error.path else ["body"])
    message = f"1 validation error:\n  {{'type': '{first['type']}', 'loc': '{param}', 'msg': '{first['msg']}'}}"
    status = HTTPStatus.BAD_REQUEST
    return HttpError(status, error_body(message, status.phrase, status, param))


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
        return HttpError(status, error_body(_ENGINE_DEAD, "InternalServerError", status))

    def of_http(self, error: web.HTTPException) -> HttpError:
        """As FastAPI answers by default: vLLM's own handler sees only what its routes raise."""
        return fastapi_error(error)

    def internal(self) -> HttpError:
        """A GenerationError."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return HttpError(status, error_body("Internal server error", "InternalServerError", status))

"""TensorRT-LLM's errors (tensorrt_llm/serve/openai_server.py, 1.2)."""

from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError, fastapi_error
from enginehouse.engines.emulators.core.bodies import BodyError
from enginehouse.engines.emulators.core.errors import GenerationBroken
from enginehouse.engines.emulators.core.flat_words import flat_error


def bad_request(message: str) -> HttpError:
    """What TensorRT-LLM answers to a request that it cannot serve as it is, and to one that fails."""
    return flat_error(message, "BadRequestError", HTTPStatus.BAD_REQUEST)


def not_valid(error: BodyError) -> HttpError:
    """What TensorRT-LLM answers to a body that is not of the form asked for. It quotes inputs; this quotes none."""
    message = f"1 validation error: {{'loc': ('body', '{error.path}'), 'msg': '{error.first['msg']}'}}"
    return HttpError(HTTPStatus.BAD_REQUEST, {"error": message})


class TensorRtLlmWords(ErrorWords):
    """TensorRT-LLM's words."""

    def trouble(self, error: EngineTrouble) -> HttpError:
        """Whatever fails in a request is 400. It queues without end, so for too many there are no words of its own."""
        if isinstance(error, GenerationBroken):
            return bad_request("The request failed: emulated")
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return flat_error("The server is unavailable.", "ServiceUnavailableError", status)

    def of_http(self, error: web.HTTPException) -> HttpError:
        """As FastAPI answers by default."""
        return fastapi_error(error)

    def internal(self) -> HttpError:
        """A failure inside."""
        return flat_error("Internal server error", "InternalServerError", HTTPStatus.INTERNAL_SERVER_ERROR)

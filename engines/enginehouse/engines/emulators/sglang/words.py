"""SGLang's errors (sglang/srt/entrypoints/openai/serving_base.py and http_server.py, 0.5.23)."""

from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError, fastapi_error
from enginehouse.engines.emulators.core.bodies import BodyError
from enginehouse.engines.emulators.core.errors import GenerationBroken
from enginehouse.engines.emulators.core.flat_words import flat_error


def bad_request(message: str) -> HttpError:
    """What SGLang answers to a request that it cannot serve as it is."""
    return flat_error(message, "BadRequest", HTTPStatus.BAD_REQUEST)


def not_valid(error: BodyError) -> HttpError:
    """What SGLang answers to a body that is not of the form asked for. It quotes inputs; this quotes none."""
    status = HTTPStatus.BAD_REQUEST
    message = f"1 validation error: {{'loc': ('body', '{error.path}'), 'msg': '{error.first['msg']}'}}"
    return flat_error(message, status.phrase, status)


class SglangWords(ErrorWords):
    """SGLang's words."""

    def trouble(self, error: EngineTrouble) -> HttpError:
        """A full queue is 503, a broken generation 500. The type is the status again, as HTTPException makes it."""
        if isinstance(error, GenerationBroken):
            return self.internal()
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return flat_error("The request queue is full.", str(status.value), status)

    def of_http(self, error: web.HTTPException) -> HttpError:
        """As FastAPI answers by default."""
        return fastapi_error(error)

    def internal(self) -> HttpError:
        """A failure inside."""
        return flat_error("Internal server error: emulated", "InternalServerError", HTTPStatus.INTERNAL_SERVER_ERROR)

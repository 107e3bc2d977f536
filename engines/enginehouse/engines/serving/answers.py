"""What our own engine servers say when they refuse: OpenAI's error body, whatever went wrong."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """A refusal in the form of OpenAI's API.

    Args:
        message: what was wrong, for the caller.
        status: of the answer.
        param: the body member at fault.
        code: a word for programs, for example "context_length_exceeded".
    """

    def __init__(
        self,
        message: str,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, object]:
        """The JSON body."""
        kind = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        """The whole answer."""
        return web.json_response(self.body, status=self.status)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every failure with OpenAI's error body. What is not expected is logged by its kind alone: its text may
    hold a prompt."""
    try:
        return await handler(request)
    except ApiError as error:
        return error.response()
    except web.HTTPException as error:
        return ApiError(f"{request.method} {request.path}: {error.reason}", HTTPStatus(error.status)).response()
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 (the last resort of a server)
        _LOG.error("%s %s failed: %s", request.method, request.path, type(error).__name__)
        return ApiError("the engine failed", HTTPStatus.INTERNAL_SERVER_ERROR).response()

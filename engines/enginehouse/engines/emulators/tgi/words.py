"""TGI's errors (router/src/server.rs, infer/mod.rs and validation.rs), and those of axum below it."""

from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.emulators.core.answers import EngineTrouble, ErrorWords, HttpError, Json
from enginehouse.engines.emulators.core.bodies import BodyError
from enginehouse.engines.emulators.core.errors import BrokenBy, GenerationBroken, Overloaded


def error_body(message: str, kind: str) -> Json:
    """TGI's ErrorResponse."""
    return {"error": message, "error_type": kind}


def not_valid(message: str) -> HttpError:
    """A ValidationError."""
    body = error_body(f"Input validation error: {message}", "validation")
    return HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, body)


def not_readable(error: BodyError) -> HttpError:
    """A body that axum's Json extractor refuses: plain text. Columns are left out."""
    if not error.is_json:
        return HttpError(HTTPStatus.BAD_REQUEST, "Failed to parse the request body as JSON")
    missing = error.first["type"] == "missing"
    what = f"missing field `{error.path.rsplit('.', 1)[-1]}`" if missing else f"{error.path}: invalid type"
    message = f"Failed to deserialize the JSON body into the target type: {what}"
    return HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, message)


class TgiWords(ErrorWords):
    """TGI's words."""

    def trouble(self, error: EngineTrouble) -> HttpError:
        """Overloaded is 429; a broken generation 424; one that stops half-way 500; loading or ending 503."""
        if isinstance(error, Overloaded):
            return HttpError(HTTPStatus.TOO_MANY_REQUESTS, error_body("Model is overloaded", "overloaded"))
        if isinstance(error, GenerationBroken) and error.cause is BrokenBy.FAULT:
            body = error_body("Request failed during generation: emulated failure", "generation")
            return HttpError(HTTPStatus.FAILED_DEPENDENCY, body)
        if isinstance(error, GenerationBroken):
            return self.internal()
        return self.unhealthy()

    def unhealthy(self) -> HttpError:
        """What /health says."""
        return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, error_body("unhealthy", "healthcheck"))

    def of_http(self, error: web.HTTPException) -> HttpError:
        """As axum: the status alone."""
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return HttpError(error.status, None, headers=headers)

    def internal(self) -> HttpError:
        """A generation that ended without its last token."""
        body = error_body("Incomplete generation", "incomplete_generation")
        return HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, body)

"""The flat error body that FastChat gave to SGLang and TensorRT-LLM."""

from enginehouse.engines.emulators.core.answers import HttpError, Json


def flat_body(message: str, kind: str, status: int, param: str | None = None) -> Json:
    """ErrorResponse."""
    return {"object": "error", "message": message, "type": kind, "param": param, "code": int(status)}


def flat_error(message: str, kind: str, status: int, param: str | None = None) -> HttpError:
    """The whole answer."""
    return HttpError(status, flat_body(message, kind, status, param))

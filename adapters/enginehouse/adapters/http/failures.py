"""What an engine's errors mean, in every form that engines give them over HTTP.

Their messages are not passed on: engines quote the prompt in them (llama.cpp does in a parse error: ran).
"""

import re
from collections.abc import Mapping

from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError

_CONTEXT = re.compile(
    r"context[ _](size|length|window)|maximum (context|model) length|exceed_context|too long|max_seq_len"
    r"|`inputs` (tokens|must have less)",  # TGI
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_CLIENT_ERROR_STATUS_MIN = 400
_SERVER_ERROR_STATUS_MIN = 500
_REASONS = {
    401: Reason.ENGINE_FAILED,  # we hold its key wrong, which is no fault of the client
    403: Reason.ENGINE_FAILED,
    404: Reason.ENGINE_FAILED,  # a model or route that the deployment promised
    408: Reason.ENGINE_TIMEOUT,
    424: Reason.ENGINE_FAILED,  # TGI: it broke down while it generated
    429: Reason.ENGINE_OVERLOADED,
    501: Reason.ENGINE_REFUSED,  # llama.cpp: started without embeddings, or without reranking
    503: Reason.ENGINE_OVERLOADED,
    504: Reason.ENGINE_TIMEOUT,
    529: Reason.ENGINE_OVERLOADED,
}
# TGI's words for it, which alone tell within a stream (router/src/server.rs and infer/mod.rs, 3.3).
_TGI_STATUSES = {
    "generation": 424,
    "healthcheck": 503,
    "incomplete_generation": 500,
    "incomplete_generation_stream": 500,
    "overloaded": 429,
    "template_error": 422,
    "tool_error": 422,
    "validation": 422,
}


def find_error(frame: Mapping[str, object]) -> object | None:
    """The error in a frame of a 200 stream, if it is one.

    Forms: ``{"error": {...}}`` (vLLM, SGLang, llama.cpp, TGI's chats), ``{"error": "text"}`` (MLX),
    ``{"error": "text", "error_type": "word"}`` (TGI), and the flat ``{"object": "error", ...}`` (TensorRT-LLM, SGLang's
    answers with an error status, older vLLM).
    """
    error, kind = frame.get("error"), frame.get("error_type")
    if error and isinstance(kind, str):
        return {"message": error, "type": kind, "code": _TGI_STATUSES.get(kind)}
    if error:
        return error
    return frame if frame.get("object") == "error" else None


def error_from_answer(engine: str, status: int, payload: object) -> EnginehouseError:
    """The error for an answer with an error status.

    Args:
        engine: its name.
        status: HTTP status.
        payload: the parsed body; None if it is not JSON.
    """
    found = find_error(payload) if isinstance(payload, dict) else None
    return error_from_payload(engine, status, payload if found is None else found)


def error_from_payload(engine: str, status: int, payload: object) -> EnginehouseError:
    """The error for what an engine said.

    Args:
        engine: its name.
        status: HTTP status, or 200 for a frame in a stream; the payload's own code then decides.
        payload: the value of its `error` member, or all it said.
    """
    members = payload if isinstance(payload, dict) else {}
    code = members.get("code") or members.get("http_status_code")  # the latter is TGI's
    if status < _CLIENT_ERROR_STATUS_MIN:
        status = code if isinstance(code, int) and code >= _CLIENT_ERROR_STATUS_MIN else _SERVER_ERROR_STATUS_MIN
    if status < _SERVER_ERROR_STATUS_MIN and _CONTEXT.search(
        f"{members.get('type')} {code} {members.get('message', payload)}"
    ):
        return _context_error(engine, members)
    reason = _REASONS.get(status)
    if reason is None:
        reason = Reason.ENGINE_FAILED if status >= _SERVER_ERROR_STATUS_MIN else Reason.ENGINE_REFUSED
    kind = next((word for word in (members.get("type"), code) if isinstance(word, str) and _WORD.fullmatch(word)), "")
    verb = "refused the request" if reason is Reason.ENGINE_REFUSED else "failed"
    message = f"the engine {engine} {verb} with status {status}" + (f" ({kind})" if kind else "")
    return EngineError(message, reason, metadata={"engine": engine, "engine_status": str(status)})


def _context_error(engine: str, members: Mapping[str, object]) -> RequestError:
    used, limit = members.get("n_prompt_tokens"), members.get("n_ctx")
    numbers = f": {used} tokens of {limit}" if isinstance(used, int) and isinstance(limit, int) else ""
    message = f"the prompt does not fit the context of the engine {engine}{numbers}; shorten it"
    return RequestError(message, Reason.CONTEXT_TOO_LONG, metadata={"engine": engine})

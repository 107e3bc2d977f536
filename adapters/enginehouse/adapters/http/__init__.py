"""HTTP to engines: requests out, answers in pieces, and what their errors mean. What the pieces say is a dialect's."""

from enginehouse.adapters.http.connection import ERROR_STATUS_MIN, EngineCall, EngineConnection, open_session
from enginehouse.adapters.http.failures import error_from_answer, error_from_payload, find_error
from enginehouse.adapters.http.generation import AnswerSteps, Generation

__all__ = [
    "ERROR_STATUS_MIN",
    "AnswerSteps",
    "EngineCall",
    "EngineConnection",
    "Generation",
    "error_from_answer",
    "error_from_payload",
    "find_error",
    "open_session",
]
